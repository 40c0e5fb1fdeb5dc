"""Past forecasts against what came."""
