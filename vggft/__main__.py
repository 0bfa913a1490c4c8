"""The console script, also as `python -m vggft`: nothing is imported before an interrupt is met as it should be."""

import sys


def main() -> None:
    """Run the command line; leave with the exit code that README promises."""
    try:
        from vggft.cli import app

        app.main()
    except KeyboardInterrupt:  # before or after a command, which says more
        print("error: interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
