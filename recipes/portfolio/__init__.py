"""`optselect portfolio`: recorded trainings of many kinds, and the prior that is learned from them."""
