"""Models as files of other programs, checked in those programs' runtimes, with a description and a model card."""
