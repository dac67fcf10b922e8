"""What a connection must prove before mail goes over it, who says so, and the proof."""
