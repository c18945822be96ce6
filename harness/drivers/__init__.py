"""The resource drivers that come with Blackstart: VMs and addresses."""
