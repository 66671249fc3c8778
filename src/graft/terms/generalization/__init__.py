"""Terms that compare several sources, so that what is learned holds in a domain that none of them is."""
