"""What the policies are worth: scores, behaviour, statistics, and the page for people."""
