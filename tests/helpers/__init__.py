"""What several test modules share: networks, data, runs and twins of equations."""
