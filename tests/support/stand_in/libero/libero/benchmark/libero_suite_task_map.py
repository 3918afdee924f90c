libero_task_map = {"libero_object": ["pick_up_the_soup", "pick_up_the_milk"]}
