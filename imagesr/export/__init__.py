"""From a trained network to a saved model that runs without Keras: `imagesr export`."""
