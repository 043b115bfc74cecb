"""What the estate serves, one module per noun; each has ROUTES. A service has one, the monolith seven of them."""
