"""How each component is made of what its process shares. A process imports what it has: the others cost it nothing."""
