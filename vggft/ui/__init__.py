"""Output for people and for programs: messages, tables, progress, JSON."""
