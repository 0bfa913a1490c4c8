"""Where in a picture a model sees a class: heat maps from the activations of the last convolution."""
