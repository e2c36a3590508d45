"""What has to be done, in which jobs, at what cost: from a suite and a store, without torch and without a cluster."""
