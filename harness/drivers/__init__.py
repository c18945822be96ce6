"""The resource drivers that come with Blackstart: machines and addresses."""
