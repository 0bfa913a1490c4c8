"""What a change has to pass: `nox` before a commit, `nox -s all` as CI runs it.

Sessions run in the current environment, which needs the extras `weights,cpu,dev`.
"""

import tempfile

import nox

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["fast"]


@nox.session
def fast(session: nox.Session) -> None:
    """Lint, check types and run the fast tests; arguments after -- go to pytest."""
    _lint(session)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a warning is an error."""
    session.run("python", "-m", "mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(name="all")
def all_of_it(session: nox.Session) -> None:
    """Run everything that CI runs: linters, types, spelling, docs, demo, all tests and the coverage floor."""
    _lint(session)
    docs(session)
    _demo(session)
    # Some slow tests take minutes: tests of a file need not stay together, or one process would be left with the longest.
    session.run("python", "-m", "pytest", "-m", "slow or not slow", "--dist", "worksteal", "--cov")


def _lint(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")
    session.run("mypy")


def _demo(session: nox.Session) -> None:
    """Run the demo outside of the repository, so that an installed vggft has to find its own pictures."""
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        session.run("vggft", "demo")
