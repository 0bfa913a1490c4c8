"""What the comparison leaves on disk: tables and plots."""
