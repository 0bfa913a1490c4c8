"""What belongs to the whole process: its signals, and what libraries print on its descriptors."""
