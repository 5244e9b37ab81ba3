"""A champion after its promotion: drift, performance and the monthly report."""
