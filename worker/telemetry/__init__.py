"""What is told of the work: lines for logs and for Flower's pages, and traces."""
