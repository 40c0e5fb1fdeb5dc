"""Forecasts of every tradable symbol into one file, resumable at any moment, and on into a database."""
