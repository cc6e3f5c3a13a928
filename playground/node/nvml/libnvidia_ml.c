/* libnvidia-ml.so.1 without a GPU: the C twin of the simulated NVML beside it (session.py, devices.py, health.py), for
 * processes that load the library by its name. Same state file, whose path FRACGPU_NVML_STATE has at nvmlInit, same
 * answers; tests/playground/test_nvml_library.py holds the two together. Struct layouts are those of nvml.h.
 *
 * The state file is read in every call, and its JSON looked through where it lies: it is a few kilobytes, written by a
 * program, so a malformed file gives default values at worst.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    OUT_OF_MEMORY = 20,
    VERSION_MISMATCH = 25,
};

enum { UUID_SIZE = 96, PATH_SIZE = 4096, MAX_GPUS = 64, MAX_MIG_DEVICES = 7, POLL_NANOSECONDS = 10000000 };
enum { EVENT_SINGLE_BIT = 1, EVENT_DOUBLE_BIT = 2, EVENT_XID = 8 };
enum { EXCLUSIVE_THREAD = 1, COMPUTE_MODES = 4, RECOVERY_ACTION_FIELD = 230, TYPE_UNSIGNED_INT = 1 };
#define ANY_INSTANCE 0xFFFFFFFFu
#define MEMORY_V2 0x02000028u
#define MIB 1048576ull

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info;

typedef struct {
    unsigned long long total, free, used;
} memory_v1;

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} memory_v2;

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} process_info;

typedef struct {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} event_data;

typedef struct {
    unsigned field, scope;
    int64_t timestamp, latency;
    unsigned type;
    int code;
    union {
        unsigned number;
        unsigned long long widest;
    } value;
} field_value;

_Static_assert(sizeof(pci_info) == 68, "nvmlPciInfo_t");
_Static_assert(sizeof(memory_v2) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(process_info) == 24, "nvmlProcessInfo_t");
_Static_assert(sizeof(event_data) == 32, "nvmlEventData_t");
_Static_assert(sizeof(field_value) == 40, "nvmlFieldValue_t");

/* ---- JSON: pointers into the text stand for values; NULL stands for one that is not there, or null ---- */

static const char *after_space(const char *p) {
    while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')
        p++;
    return p;
}

static const char *after_string(const char *p) {
    for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && p[1])
            p++;
    return *p ? p + 1 : p;
}

static const char *after_value(const char *p) {
    int depth = 0;
    while (*p) {
        if (*p == '"') {
            p = after_string(p);
        } else {
            if (depth == 0 && (*p == ',' || *p == ']' || *p == '}'))
                break;
            depth += (*p == '[' || *p == '{') - (*p == ']' || *p == '}');
            p++;
        }
        if (depth == 0 && (p[-1] == '"' || p[-1] == ']' || p[-1] == '}'))
            break;
    }
    return p;
}

static const char *unless_null(const char *p) { return strncmp(p, "null", 4) ? p : NULL; }

static const char *member(const char *object, const char *key) {
    if (!object || *object != '{')
        return NULL;
    const char *p = after_space(object + 1);
    while (*p == '"') {
        const char *name = p + 1, *end = after_string(p);
        bool same = (size_t)(end - name) == strlen(key) + 1 && !strncmp(name, key, strlen(key));
        p = after_space(end);
        if (*p == ':')
            p = after_space(p + 1);
        if (same)
            return unless_null(p);
        p = after_space(after_value(p));
        if (*p == ',')
            p = after_space(p + 1);
    }
    return NULL;
}

/* The first value of an array, and the one after another; NULL at the end. */
static const char *first(const char *array) {
    if (!array || *array != '[')
        return NULL;
    const char *p = after_space(array + 1);
    return *p && *p != ']' ? p : NULL;
}

static const char *next(const char *value) {
    const char *p = after_space(after_value(value));
    return *p == ',' ? after_space(p + 1) : NULL;
}

static const char *item(const char *array, unsigned index) {
    const char *p = first(array);
    while (p && index--)
        p = next(p);
    return p;
}

static long long number(const char *value, long long otherwise) { return value ? strtoll(value, NULL, 10) : otherwise; }

static bool truth(const char *value, bool otherwise) { return value ? *value == 't' : otherwise; }

/* Escapes of control characters (\n, \u....) come out as their letter: no name has any. */
static void text(const char *value, char *buffer, size_t size) {
    size_t length = 0;
    if (value && *value == '"')
        for (const char *p = value + 1; *p && *p != '"' && length + 1 < size; p++) {
            if (*p == '\\' && p[1])
                p++;
            buffer[length++] = *p;
        }
    buffer[length] = 0;
}

static bool says(const char *value, const char *expected) {
    char found[UUID_SIZE];
    text(value, found, sizeof found);
    return !strcmp(found, expected);
}

/* ---- The session: everything below is guarded by one lock ---- */

struct place { /* what a device handle points to; never freed, so that an old handle stays recognisable */
    struct place *next;
    long long generation;
    char uuid[UUID_SIZE];
};

struct watch { /* one GPU of an event set */
    struct watch *next;
    char uuid[UUID_SIZE];
    struct place *device;
    unsigned long long mask;
    long long had; /* number of the last XID that is no news */
};

struct event_set {
    struct event_set *next;
    long long generation;
    struct watch *watches;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char state_path[PATH_SIZE];
static char *state_text; /* as last read */
static unsigned inits, gpu_count;
static long long session_generation = -1;
static char session_uuids[MAX_GPUS][UUID_SIZE]; /* fixed at nvmlInit */
static struct place *places;
static struct event_set *event_sets;

static void unlock(pthread_mutex_t **held) { pthread_mutex_unlock(*held); }
#define GUARD                                                                                                          \
    __attribute__((cleanup(unlock), unused)) pthread_mutex_t *held = &lock;                                            \
    pthread_mutex_lock(&lock)
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        int code_ = (call);                                                                                            \
        if (code_ != SUCCESS)                                                                                          \
            return code_;                                                                                              \
    } while (0)

static const char *driver(const char *key) { return member(member(after_space(state_text), "driver"), key); }

static const char *gpus(void) {
    const char *root = after_space(state_text);
    return *root == '[' ? root : member(root, "gpus");
}

static int read_state(void) {
    FILE *file = fopen(state_path, "rb");
    if (!file)
        return DRIVER_NOT_LOADED;
    size_t length = 0, room = 0, got;
    free(state_text);
    state_text = NULL;
    do {
        if (length + 1 >= room) {
            char *larger = realloc(state_text, room = room ? room * 2 : 65536);
            if (!larger) {
                fclose(file);
                return OUT_OF_MEMORY;
            }
            state_text = larger;
        }
        got = fread(state_text + length, 1, room - length - 1, file);
        length += got;
    } while (got);
    fclose(file);
    state_text[length] = 0;
    return truth(driver("loaded"), true) ? SUCCESS : DRIVER_NOT_LOADED;
}

static int check_session(void) {
    if (!inits)
        return UNINITIALIZED;
    TRY(read_state());
    return number(driver("generation"), 0) == session_generation ? SUCCESS : UNINITIALIZED;
}

static int session_index(const char *uuid) {
    for (unsigned i = 0; i < gpu_count; i++)
        if (!strcmp(session_uuids[i], uuid))
            return (int)i;
    return -1;
}

/* A GPU of the session by UUID, if it is not lost. */
static int find_gpu(const char *uuid, const char **gpu) {
    for (*gpu = first(gpus()); *gpu; *gpu = next(*gpu))
        if (says(member(*gpu, "uuid"), uuid) && !truth(member(*gpu, "lost"), false))
            return SUCCESS;
    return GPU_IS_LOST;
}

/* A MIG instance and the UUID of its GPU. */
static const char *find_mig(const char *uuid, char *parent) {
    for (const char *gpu = first(gpus()); gpu; gpu = next(gpu)) {
        text(member(gpu, "uuid"), parent, UUID_SIZE);
        if (session_index(parent) < 0)
            continue;
        for (const char *mig = first(member(gpu, "mig")); mig; mig = next(mig))
            if (says(member(mig, "uuid"), uuid))
                return mig;
    }
    return NULL;
}

static int put_device(const char *uuid, void **handle) {
    struct place *place = places;
    while (place && (place->generation != session_generation || strcmp(place->uuid, uuid)))
        place = place->next;
    if (!place) {
        place = calloc(1, sizeof *place);
        if (!place)
            return OUT_OF_MEMORY;
        place->generation = session_generation;
        snprintf(place->uuid, sizeof place->uuid, "%s", uuid);
        place->next = places;
        places = place;
    }
    *handle = place;
    return SUCCESS;
}

/* Whom a handle means: a GPU, and where it is a MIG instance's that too. */
static int find_device(const void *handle, const char **gpu, const char **mig) {
    TRY(check_session());
    const struct place *place = places;
    while (place && place != handle)
        place = place->next;
    if (!place || place->generation != session_generation)
        return INVALID_ARGUMENT;
    *mig = NULL;
    if (session_index(place->uuid) >= 0)
        return find_gpu(place->uuid, gpu);
    char parent[UUID_SIZE];
    *mig = find_mig(place->uuid, parent);
    return *mig ? find_gpu(parent, gpu) : INVALID_ARGUMENT;
}

/* For functions that have no answer about a MIG instance. */
static int find_whole(const void *handle, const char **gpu) {
    const char *mig;
    TRY(find_device(handle, gpu, &mig));
    return mig ? NOT_SUPPORTED : SUCCESS;
}

static int find_instance(const void *handle, const char **gpu, const char **mig, int otherwise) {
    TRY(find_device(handle, gpu, mig));
    return *mig ? SUCCESS : otherwise;
}

__attribute__((format(printf, 3, 4))) static int put_text(char *buffer, unsigned size, const char *format, ...) {
    char whole[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(whole, sizeof whole, format, arguments);
    va_end(arguments);
    if (length < 0 || (unsigned)length + 1 > size || (size_t)length >= sizeof whole)
        return INSUFFICIENT_SIZE;
    memcpy(buffer, whole, (size_t)length + 1);
    return SUCCESS;
}

/* ---- System ---- */

int nvmlInitWithFlags(unsigned flags) {
    GUARD;
    (void)flags;
    if (!inits) {
        const char *path = getenv("FRACGPU_NVML_STATE");
        snprintf(state_path, sizeof state_path, "%s", path ? path : "");
    }
    TRY(read_state());
    long long generation = number(driver("generation"), 0);
    if (!inits || generation != session_generation) {
        session_generation = generation;
        gpu_count = 0;
        for (const char *gpu = first(gpus()); gpu && gpu_count < MAX_GPUS; gpu = next(gpu))
            text(member(gpu, "uuid"), session_uuids[gpu_count++], UUID_SIZE);
    }
    inits++;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    GUARD;
    if (!inits)
        return UNINITIALIZED;
    inits--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid argument", "Not supported", "No permission", "Already initialized",
        "Not found", "Insufficient size", "Insufficient power", "Driver not loaded", "Timeout", "Irq issue",
        "Library not found", "Function not found", "Corrupted inforom", "Gpu is lost", "Reset required",
        "Operating system", "Lib rm version mismatch", "In use", "Memory", "No data", "Vgpu ecc not supported",
        "Insufficient resources", "Freq not supported", "Argument version mismatch", "Deprecated", "Not ready",
        "Gpu not found", "Invalid state", "Reset type not supported",
    };
    return code >= 0 && (size_t)code < sizeof texts / sizeof *texts ? texts[code] : "Unknown";
}

int nvmlSystemGetDriverVersion(char *buffer, unsigned size) {
    GUARD;
    char version[80] = "580.95.05";
    TRY(check_session());
    if (driver("version"))
        text(driver("version"), version, sizeof version);
    return put_text(buffer, size, "%s", version);
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    GUARD;
    TRY(check_session());
    *version = (int)number(driver("cuda_version"), 13000);
    return SUCCESS;
}

/* ---- Devices ---- */

int nvmlDeviceGetCount_v2(unsigned *count) {
    GUARD;
    TRY(check_session());
    *count = gpu_count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    GUARD;
    TRY(check_session());
    return index < gpu_count ? put_device(session_uuids[index], device) : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    GUARD;
    char parent[UUID_SIZE];
    TRY(check_session());
    return session_index(uuid) >= 0 || find_mig(uuid, parent) ? put_device(uuid, device) : NOT_FOUND;
}

int nvmlDeviceGetUUID(const void *device, char *buffer, unsigned size) {
    GUARD;
    const char *gpu, *mig;
    char uuid[UUID_SIZE];
    TRY(find_device(device, &gpu, &mig));
    text(member(mig ? mig : gpu, "uuid"), uuid, sizeof uuid);
    return put_text(buffer, size, "%s", uuid);
}

int nvmlDeviceGetName(const void *device, char *buffer, unsigned size) {
    GUARD;
    const char *gpu, *mig;
    char product[200], profile[50];
    TRY(find_device(device, &gpu, &mig));
    text(member(gpu, "product"), product, sizeof product);
    text(member(mig, "profile"), profile, sizeof profile);
    return put_text(buffer, size, "%s%s%s", product, mig ? " MIG " : "", profile);
}

int nvmlDeviceGetIndex(const void *device, unsigned *index) {
    GUARD;
    const char *gpu;
    char uuid[UUID_SIZE];
    TRY(find_whole(device, &gpu));
    text(member(gpu, "uuid"), uuid, sizeof uuid);
    *index = (unsigned)session_index(uuid);
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(const void *device, unsigned *minor) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    *minor = (unsigned)number(member(gpu, "minor"), 0);
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(const void *device, pci_info *info) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    memset(info, 0, sizeof *info);
    text(member(gpu, "pci_bus_id"), info->bus_id, sizeof info->bus_id);
    if (!*info->bus_id)
        strcpy(info->bus_id, "00000000:01:00.0");
    sscanf(info->bus_id, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    const char *colon = strchr(info->bus_id, ':');
    if (colon && colon - info->bus_id >= 4)
        snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "%.15s", colon - 4);
    return SUCCESS;
}

int nvmlDeviceGetNumaNodeId(const void *device, unsigned *node) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    if (!member(gpu, "numa_node"))
        return NOT_SUPPORTED;
    *node = (unsigned)number(member(gpu, "numa_node"), 0);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(const void *device, int *major, int *minor) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    *major = (int)number(item(member(gpu, "compute_capability"), 0), 8);
    *minor = (int)number(item(member(gpu, "compute_capability"), 1), 0);
    return SUCCESS;
}

/* The processes of one GPU or instance, with their instance numbers, as far as there is room for them. */
static void add_processes(const char *owner, bool instance, process_info *array, unsigned room, unsigned *count,
                          unsigned long long *used) {
    for (const char *process = first(member(owner, "processes")); process; process = next(process), (*count)++) {
        unsigned long long bytes = (unsigned long long)number(member(process, "used_mib"), 0) * MIB;
        *used += bytes;
        if (*count >= room)
            continue;
        array[*count].pid = (unsigned)number(member(process, "pid"), 0);
        array[*count].used = bytes;
        array[*count].gpu_instance = instance ? (unsigned)number(member(owner, "gpu_instance"), 0) : ANY_INSTANCE;
        array[*count].compute_instance =
            instance ? (unsigned)number(member(owner, "compute_instance"), 0) : ANY_INSTANCE;
    }
}

/* The processes of a device; a GPU includes its instances. */
static void collect(const char *gpu, const char *mig, process_info *array, unsigned room, unsigned *count,
                    unsigned long long *used) {
    *count = 0;
    *used = 0;
    if (mig) {
        add_processes(mig, true, array, room, count, used);
        return;
    }
    add_processes(gpu, false, array, room, count, used);
    for (const char *instance = first(member(gpu, "mig")); instance; instance = next(instance))
        add_processes(instance, true, array, room, count, used);
}

static int measure(const void *device, memory_v2 *memory) {
    const char *gpu, *mig;
    unsigned count;
    TRY(find_device(device, &gpu, &mig));
    collect(gpu, mig, NULL, 0, &count, &memory->used);
    memory->total = (unsigned long long)number(member(mig ? mig : gpu, "memory_mib"), 0) * MIB;
    memory->reserved = mig ? 0 : (unsigned long long)number(member(gpu, "reserved_mib"), 0) * MIB;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(const void *device, memory_v1 *memory) {
    GUARD;
    memory_v2 now;
    TRY(measure(device, &now));
    memory->total = now.total;
    memory->free = now.free;
    memory->used = now.reserved + now.used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(const void *device, memory_v2 *memory) {
    GUARD;
    return memory->version == MEMORY_V2 ? measure(device, memory) : VERSION_MISMATCH;
}

int nvmlDeviceGetComputeRunningProcesses_v3(const void *device, unsigned *count, process_info *array) {
    GUARD;
    const char *gpu, *mig;
    unsigned long long used;
    unsigned room = *count;
    TRY(find_device(device, &gpu, &mig));
    collect(gpu, mig, array, array ? room : 0, count, &used);
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}

/* The compute mode's file, beside the state file: the driver's generation and the mode. */
static FILE *open_compute_mode(const char *gpu, const char *how) {
    char uuid[UUID_SIZE], path[PATH_SIZE + UUID_SIZE + 20];
    text(member(gpu, "uuid"), uuid, sizeof uuid);
    snprintf(path, sizeof path, "%s.%s.compute-mode", state_path, uuid);
    return fopen(path, how);
}

int nvmlDeviceGetComputeMode(const void *device, unsigned *mode) {
    GUARD;
    const char *gpu;
    long long generation = -1;
    TRY(find_whole(device, &gpu));
    FILE *file = open_compute_mode(gpu, "r");
    if (!file || fscanf(file, "%lld %u", &generation, mode) != 2 || generation != session_generation)
        *mode = 0;
    if (file)
        fclose(file);
    return SUCCESS;
}

int nvmlDeviceSetComputeMode(const void *device, unsigned mode) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    if (mode >= COMPUTE_MODES)
        return INVALID_ARGUMENT;
    if (member(gpu, "mig") || mode == EXCLUSIVE_THREAD)
        return NOT_SUPPORTED;
    FILE *file = open_compute_mode(gpu, "w");
    if (!file)
        return OUT_OF_MEMORY;
    fprintf(file, "%lld %u\n", session_generation, mode);
    fclose(file);
    return SUCCESS;
}

/* ---- MIG ---- */

int nvmlDeviceGetMigMode(const void *device, unsigned *current, unsigned *pending) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    *current = *pending = member(gpu, "mig") != NULL;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(const void *device, unsigned *count) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    *count = member(gpu, "mig") ? MAX_MIG_DEVICES : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(const void *device, unsigned index, void **mig_device) {
    GUARD;
    const char *gpu;
    char uuid[UUID_SIZE];
    TRY(find_whole(device, &gpu));
    if (!member(gpu, "mig") || index >= MAX_MIG_DEVICES)
        return INVALID_ARGUMENT;
    const char *mig = item(member(gpu, "mig"), index);
    if (!mig)
        return NOT_FOUND;
    text(member(mig, "uuid"), uuid, sizeof uuid);
    return put_device(uuid, mig_device);
}

int nvmlDeviceGetGpuInstanceId(const void *device, unsigned *id) {
    GUARD;
    const char *gpu, *mig;
    TRY(find_instance(device, &gpu, &mig, NOT_SUPPORTED));
    *id = (unsigned)number(member(mig, "gpu_instance"), 0);
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(const void *device, unsigned *id) {
    GUARD;
    const char *gpu, *mig;
    TRY(find_instance(device, &gpu, &mig, NOT_SUPPORTED));
    *id = (unsigned)number(member(mig, "compute_instance"), 0);
    return SUCCESS;
}

int nvmlDeviceIsMigDeviceHandle(const void *device, unsigned *answer) {
    GUARD;
    const char *gpu, *mig;
    TRY(find_device(device, &gpu, &mig));
    *answer = mig != NULL;
    return SUCCESS;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(const void *mig_device, void **device) {
    GUARD;
    const char *gpu, *mig;
    char uuid[UUID_SIZE];
    TRY(find_instance(mig_device, &gpu, &mig, INVALID_ARGUMENT));
    text(member(gpu, "uuid"), uuid, sizeof uuid);
    return put_device(uuid, device);
}

/* ---- Health ---- */

int nvmlDeviceGetEccMode(const void *device, unsigned *current, unsigned *pending) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    *current = *pending = truth(member(gpu, "ecc"), true);
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(const void *device, unsigned type, unsigned counter, unsigned long long *count) {
    GUARD;
    const char *gpu;
    (void)counter;
    TRY(find_whole(device, &gpu));
    if (!truth(member(gpu, "ecc"), true))
        return NOT_SUPPORTED;
    *count = type == 1 ? (unsigned long long)number(member(gpu, "ecc_uncorrected"), 0) : 0;
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(const void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failure) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    const char *rows = member(gpu, "remapped");
    if (!rows || first(member(gpu, "mig")))
        return NOT_SUPPORTED;
    *corrected = (unsigned)number(member(rows, "corrected"), 0);
    *uncorrected = (unsigned)number(member(rows, "uncorrected"), 0);
    *pending = truth(member(rows, "pending"), false);
    *failure = truth(member(rows, "failure"), false);
    return SUCCESS;
}

int nvmlDeviceGetFieldValues(const void *device, int count, field_value *values) {
    GUARD;
    static const char *const actions[] = {"none", "reset", "reboot", "drain-p2p", "drain-and-reset"};
    const char *gpu;
    TRY(find_whole(device, &gpu));
    const char *action = member(gpu, "recovery_action");
    for (int i = 0; i < count; i++) {
        values[i].code = NOT_SUPPORTED;
        for (unsigned known = 0; known < sizeof actions / sizeof *actions; known++) {
            if (values[i].field != RECOVERY_ACTION_FIELD || !says(action, actions[known]))
                continue;
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            values[i].code = SUCCESS;
            values[i].type = TYPE_UNSIGNED_INT;
            values[i].value.number = known;
            values[i].timestamp = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
        }
    }
    return SUCCESS;
}

/* ---- Events ---- */

static unsigned long long supported_events(const char *gpu) {
    return EVENT_XID | (truth(member(gpu, "ecc"), true) ? EVENT_SINGLE_BIT | EVENT_DOUBLE_BIT : 0);
}

static int find_set(const void *handle, struct event_set **set) {
    TRY(check_session());
    for (*set = event_sets; *set && *set != handle;)
        *set = (*set)->next;
    return *set && (*set)->generation == session_generation ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetSupportedEventTypes(const void *device, unsigned long long *types) {
    GUARD;
    const char *gpu;
    TRY(find_whole(device, &gpu));
    *types = supported_events(gpu);
    return SUCCESS;
}

int nvmlEventSetCreate(void **handle) {
    GUARD;
    TRY(check_session());
    struct event_set *set = calloc(1, sizeof *set);
    if (!set)
        return OUT_OF_MEMORY;
    set->generation = session_generation;
    set->next = event_sets;
    *handle = event_sets = set;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *handle) {
    GUARD;
    struct event_set *set;
    const char *gpu;
    char uuid[UUID_SIZE];
    TRY(find_set(handle, &set));
    TRY(find_whole(device, &gpu));
    if (types & ~supported_events(gpu))
        return NOT_SUPPORTED;
    text(member(gpu, "uuid"), uuid, sizeof uuid);
    struct watch **end = &set->watches;
    while (*end && strcmp((*end)->uuid, uuid))
        end = &(*end)->next;
    if (!*end) {
        *end = calloc(1, sizeof **end);
        if (!*end)
            return OUT_OF_MEMORY;
        strcpy((*end)->uuid, uuid);
        (*end)->device = device;
    }
    if (!((*end)->mask & EVENT_XID))
        for (const char *xid = first(member(gpu, "xids")); xid; xid = next(xid))
            if (number(member(xid, "number"), 0) > (*end)->had)
                (*end)->had = number(member(xid, "number"), 0);
    (*end)->mask |= types;
    return SUCCESS;
}

/* The XID of a GPU that is news and the oldest of those; NULL where there is none. */
static const char *oldest_news(const struct watch *watch) {
    const char *found = NULL, *gpu = first(gpus());
    while (gpu && !says(member(gpu, "uuid"), watch->uuid))
        gpu = next(gpu);
    for (const char *xid = first(member(gpu, "xids")); xid; xid = next(xid))
        if (number(member(xid, "number"), 0) > watch->had &&
            (!found || number(member(xid, "number"), 0) < number(member(found, "number"), 0)))
            found = xid;
    return found;
}

static int take_event(void *handle, event_data *data) {
    GUARD;
    struct event_set *set;
    TRY(find_set(handle, &set));
    for (struct watch *watch = set->watches; watch; watch = watch->next) {
        const char *xid = watch->mask & EVENT_XID ? oldest_news(watch) : NULL;
        if (!xid)
            continue;
        watch->had = number(member(xid, "number"), 0);
        data->device = watch->device;
        data->type = EVENT_XID;
        data->data = (unsigned long long)number(member(xid, "xid"), 0);
        data->gpu_instance = (unsigned)number(member(xid, "gpu_instance"), ANY_INSTANCE);
        data->compute_instance = (unsigned)number(member(xid, "compute_instance"), ANY_INSTANCE);
        return SUCCESS;
    }
    for (struct watch *watch = set->watches; watch; watch = watch->next) {
        const char *gpu;
        TRY(find_gpu(watch->uuid, &gpu));
    }
    return TIMEOUT;
}

int nvmlEventSetWait_v2(void *handle, event_data *data, unsigned timeout) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        int code = take_event(handle, data);
        clock_gettime(CLOCK_MONOTONIC, &now);
        long long waited = (now.tv_sec - start.tv_sec) * 1000000000ll + now.tv_nsec - start.tv_nsec;
        long long left = timeout * 1000000ll - waited;
        if (code != TIMEOUT || left <= 0)
            return code;
        nanosleep(&(struct timespec){.tv_nsec = left < POLL_NANOSECONDS ? left : POLL_NANOSECONDS}, NULL);
    }
}

int nvmlEventSetFree(void *handle) {
    GUARD;
    struct event_set *set, **link = &event_sets;
    TRY(find_set(handle, &set));
    while (*link != set)
        link = &(*link)->next;
    *link = set->next;
    while (set->watches) {
        struct watch *watch = set->watches;
        set->watches = watch->next;
        free(watch);
    }
    free(set);
    return SUCCESS;
}
