"""What operators live on, the same in every service: structured logs, health and metrics."""
