"""The frozen network: its layers, its weights, and the Keras model made of both."""
