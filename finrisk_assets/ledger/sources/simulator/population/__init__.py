"""The simulated people, their households and the economy they live in."""
