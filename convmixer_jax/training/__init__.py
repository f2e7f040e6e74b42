"""State, optimiser, compiled steps, evaluation and the loop that joins everything."""
