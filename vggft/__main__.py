"""The console script, also as `python -m vggft`. Signals are handled before anything else is imported."""

import sys


def main() -> None:
    """Run the command line, and exit with its exit code."""
    from featurize.process import interrupts

    try:
        interrupts.listen()
        from vggft.cli import app

        app.main()
    except KeyboardInterrupt:  # outside of a command, which has a more specific message
        print("error: interrupted.", file=sys.stderr)
        interrupts.leave()
    except SystemExit as end:
        if end.code == interrupts.EXIT_CODE:
            interrupts.leave()
        if interrupts.blocked():  # by a file system that does not respond
            interrupts.leave(end.code if isinstance(end.code, int) else 0)
        raise


if __name__ == "__main__":
    main()
