def load_controller_config(default_controller):
    return {"type": default_controller, "control_delta": True}
