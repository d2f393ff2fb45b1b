"""What is shipped with the code: the embedded weights and the demo clip."""
