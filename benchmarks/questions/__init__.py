"""What is asked of the contenders: each module has `ask(contest)`, which returns an `Answer`."""
