"""What a rank does with its subdomains: train their networks, resume them, give their decisions."""
