// Stands in for class ArxCan of the SDK's libhardware (LD_PRELOAD): simulated motors, a log of every command, faults.
// Test only. Signatures and the layout of a motor's message are those that `nm -DC` and the SDK's headers show.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <string>
#include <time.h>
#include <unistd.h>

struct OD_Motor_Msg {
    int16_t current_int;
    float speed, angle;
    uint16_t id;
    uint8_t temperature, error;
    float angle_float, current;
    float gripper[6];
};
static_assert(sizeof(OD_Motor_Msg) == 48, "the SDK expects messages of 48 bytes");

class ArxCan {
  public:
    ArxCan(std::string interface_name);
    ~ArxCan();
    bool send_EC_motor_cmd(uint16_t id, float kp, float kd, float pos, float vel, float tor);
    bool send_DM_motor_cmd(uint16_t id, float kp, float kd, float pos, float vel, float tor);
    bool enable_DM_motor(uint16_t id);
    void can_cmd_init(uint16_t id, uint8_t cmd);
    void reset_zero_readout(uint16_t id);
    void clear(uint16_t id);
    std::array<OD_Motor_Msg, 10> get_motor_msg();
};

namespace {
constexpr int MOTORS = 10;
constexpr double INERTIA[MOTORS] = {1, .05, .05, 1, .05, .02, .02, .01, .01, 1};
constexpr double FRICTION = 0.3, STEP = 0.0005;

struct Record { // as tests/arx reads it
    double time;
    int32_t id, kind; // kind: 0 DM command, 1 EC command, 2 DM enable
    float kp, kd, pos, vel, tor, angle;
};

struct Motor {
    double q = 0, v = 0, current = 0, time = 0;
    double shown = 0;       // added to the current that is reported
    double wall = INFINITY; // the angle does not go beyond
    bool wild = false;      // reports an angle far off
};

struct World {
    std::mutex lock;
    Motor motors[MOTORS];
    bool dead = false, frozen = false, zero = false, still = false;
    std::array<OD_Motor_Msg, MOTORS> last{};
    int log = -1;
    uint32_t noise = 1;
} world;

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

double noise() { // about a step of the encoder
    world.noise = world.noise * 1664525u + 1013904223u;
    return world.still ? 0.0 : ((world.noise >> 8) / 16777216.0 - 0.5) * 4e-4;
}

void write_down(int id, int kind, float kp, float kd, float pos, float vel, float tor) {
    if (world.log < 0) return;
    Record record{now(), id, kind, kp, kd, pos, vel, tor, (float)world.motors[id].q};
    if (write(world.log, &record, sizeof record) != (ssize_t)sizeof record) abort();
}

// A motor with its share of the arm; `tor` carries the weight exactly, so it neither sinks nor rises.
void drive(int id, int kind, float kp, float kd, float pos, float vel, float tor) {
    std::lock_guard<std::mutex> guard(world.lock);
    if (id < 0 || id >= MOTORS) abort();
    write_down(id, kind, kp, kd, pos, vel, tor);
    if (world.dead) return;
    Motor &motor = world.motors[id];
    double end = now(), pull = 0;
    if (motor.time == 0 || end - motor.time > 0.05) motor.time = end - 0.002;
    for (; motor.time < end; motor.time += STEP) {
        pull = kp * (pos - motor.q) + kd * (vel - motor.v);
        if (!std::isfinite(pull)) break; // what a real one does then nobody knows
        motor.v += STEP * (pull - FRICTION * motor.v) / INERTIA[id];
        motor.q += STEP * motor.v;
        if (motor.q > motor.wall) motor.q = motor.wall, motor.v = std::min(motor.v, 0.0);
    }
    motor.current = pull + tor;
}
} // namespace

extern "C" {
void fake_angle(int id, double angle) {
    std::lock_guard<std::mutex> guard(world.lock);
    world.motors[id].q = angle;
}
void fake_wall(int id, double angle) {
    std::lock_guard<std::mutex> guard(world.lock);
    world.motors[id].wall = angle;
}
void fake_current(int id, double more) {
    std::lock_guard<std::mutex> guard(world.lock);
    world.motors[id].shown = more;
}
void fake_wild(int id) {
    std::lock_guard<std::mutex> guard(world.lock);
    world.motors[id].wild = true;
}
// dead: commands do nothing and readings stay; zero: nothing answers at all; still: no noise
void fake_bus(bool dead, bool zero, bool still) {
    std::lock_guard<std::mutex> guard(world.lock);
    world.dead = dead, world.zero = zero, world.still = still;
}
}

ArxCan::ArxCan(std::string) {
    std::lock_guard<std::mutex> guard(world.lock);
    if (const char *path = getenv("FAKE_CAN_LOG"); path && world.log < 0)
        world.log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
}
ArxCan::~ArxCan() {}
bool ArxCan::send_EC_motor_cmd(uint16_t id, float kp, float kd, float pos, float vel, float tor) {
    drive(id, 1, kp, kd, pos, vel, tor);
    return true;
}
bool ArxCan::send_DM_motor_cmd(uint16_t id, float kp, float kd, float pos, float vel, float tor) {
    drive(id, 0, kp, kd, pos, vel, tor);
    return true;
}
bool ArxCan::enable_DM_motor(uint16_t id) {
    std::lock_guard<std::mutex> guard(world.lock);
    write_down(id, 2, 0, 0, 0, 0, 0);
    return true;
}
void ArxCan::can_cmd_init(uint16_t, uint8_t) {}
void ArxCan::reset_zero_readout(uint16_t id) { fake_angle(id, 0); }
void ArxCan::clear(uint16_t) {}
std::array<OD_Motor_Msg, 10> ArxCan::get_motor_msg() {
    std::lock_guard<std::mutex> guard(world.lock);
    if (world.zero) return {};
    if (world.dead) return world.last;
    static const char *wild = getenv("FAKE_CAN_WILD"); // a file, for processes that run no script of ours
    if (wild && access(wild, F_OK) == 0) world.motors[1].wild = true;
    for (int id = 0; id < MOTORS; ++id) {
        Motor &motor = world.motors[id];
        OD_Motor_Msg &told = world.last[id];
        told.id = id;
        told.angle = (float)(motor.q + noise() + (motor.wild ? 20.0 : 0.0));
        told.speed = (float)(motor.v + noise());
        told.current = (float)(motor.current + motor.shown);
    }
    return world.last;
}
