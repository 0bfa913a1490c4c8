"""vggft and what else people use, each a program of its own, written as the documentation of its libraries recommends."""
