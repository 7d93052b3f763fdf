"""From loss or compute to a metric."""
