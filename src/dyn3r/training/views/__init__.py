"""Training of many-view networks: samples of N views, losses, evaluation."""
