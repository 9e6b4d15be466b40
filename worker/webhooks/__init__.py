"""What webhooks bring in and take out: events, the watches that come of them, and the service's own."""
