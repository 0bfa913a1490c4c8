"""The console script, also as `python -m vggft`: nothing is imported before signals are listened to."""

import sys


def main() -> None:
    """Run the command line; leave with its exit code."""
    from featurize.process import interrupts

    try:
        interrupts.listen()
        from vggft.cli import app

        app.main()
    except KeyboardInterrupt:  # before or after a command, which says more
        print("error: interrupted.", file=sys.stderr)
        interrupts.leave()
    except SystemExit as end:
        if end.code == interrupts.EXIT_CODE:  # a thread may be waiting for a file that does not answer
            interrupts.leave()
        raise


if __name__ == "__main__":
    main()
