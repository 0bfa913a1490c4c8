"""`python -m vggft` is the command `vggft`."""

from vggft.cli import main

main()
