"""What an adapter's parts are worth: trainings that differ in one thing."""
