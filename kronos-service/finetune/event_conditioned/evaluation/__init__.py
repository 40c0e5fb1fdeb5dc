"""How good an adapter's forecasts are, on targets it was not trained on."""
