"""Floor 3: measuring models against each other, and making them faster within a bound."""
