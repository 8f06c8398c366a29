"""What a point is where the gradient has all but vanished: a minimum, a saddle point, a maximum, a plateau, or none."""
