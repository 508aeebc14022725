"""What axes and maps mean: `explainers` makes maps, `measures` lists the topics measured of them."""
