"""What the service has answered, on disk for the scorecard, and how much of it came true."""
