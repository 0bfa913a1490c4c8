"""The bytes of an image file → the square uint8 RGB array that the network reads."""
