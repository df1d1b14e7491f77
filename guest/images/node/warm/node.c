/*
 * Node.js that waits for its program: what held.cjs needs of the process. It is a module of Node-API
 * (nodejs.org/api/n-api.html), whose functions are declared here as far as they are used.
 */
#include "waiting.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#define PR_HOST_TELL 0x484f5304

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value napi_callback(napi_env, napi_callback_info);
extern int napi_create_function(napi_env, const char *, size_t, napi_callback *, void *, napi_value *);
extern int napi_create_object(napi_env, napi_value *);
extern int napi_create_array_with_length(napi_env, size_t, napi_value *);
extern int napi_create_string_utf8(napi_env, const char *, size_t, napi_value *);
extern int napi_create_uint32(napi_env, uint32_t, napi_value *);
extern int napi_set_element(napi_env, napi_value, uint32_t, napi_value);
extern int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
extern int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **);
extern int napi_get_value_uint32(napi_env, napi_value, uint32_t *);
extern int napi_get_value_string_utf8(napi_env, napi_value, char *, size_t, size_t *);
extern int napi_get_typedarray_info(napi_env, napi_value, int *, size_t *, void **, napi_value *, size_t *);
extern int napi_add_env_cleanup_hook(napi_env, void (*)(void *), void *);
extern int napi_get_uv_event_loop(napi_env, void **);
/* Of libuv and of OpenSSL, which the binary has in it and exports. */
extern void uv_update_time(void *);
extern void *RAND_get0_primary(void *), *RAND_get0_public(void *), *RAND_get0_private(void *);
extern int EVP_RAND_reseed(void *, int, const unsigned char *, size_t, const unsigned char *, size_t);

static napi_value array_of(napi_env env, const struct list *list)
{
    napi_value array, word;
    napi_create_array_with_length(env, list->count, &array);
    for (uint32_t i = 0; i < list->count; i++) {
        napi_create_string_utf8(env, list->items[i].data, list->items[i].length, &word);
        napi_set_element(env, array, i, word);
    }
    return array;
}

static void set_number(napi_env env, napi_value object, const char *name, uint32_t value)
{
    napi_value number;
    napi_create_uint32(env, value, &number);
    napi_set_named_property(env, object, name, number);
}

/* Generators of this thread that were seeded before the machine was saved: each after the one that seeds it. */
static void reseed(void)
{
    void *generators[] = {RAND_get0_primary(NULL), RAND_get0_public(NULL), RAND_get0_private(NULL)};
    for (size_t i = 0; i < sizeof generators / sizeof *generators; i++) {
        if (generators[i] != NULL && EVP_RAND_reseed(generators[i], 0, NULL, 0, NULL, 0) != 1)
            fail("seeding random numbers");
    }
}

/*
 * Waits for the job, in the first thread that calls it. Returns the words of its command, whether its exception and the
 * value of its last expression are to be told, and two random numbers.
 */
static napi_value wait(napi_env env, napi_callback_info info)
{
    static int has_waited;
    if (has_waited)
        return NULL;
    has_waited = 1;
    struct job job = await_job(touch_read_only_pages);
    /* The streams of this process are pipes. */
    if (job.flags & EXECUTE || job.on_terminal != 0)
        execute(&job);
    struct words words = take_words(&job);
    environ = words.env;
    program_invocation_name = words.argv[0];
    uint32_t chance[2];
    if (getrandom(chance, sizeof chance, 0) != sizeof chance)
        fail("drawing random numbers");
    reseed();
    void *loop;
    if (napi_get_uv_event_loop(env, &loop) == 0)
        uv_update_time(loop);
    napi_value told;
    napi_create_object(env, &told);
    napi_set_named_property(env, told, "argv", array_of(env, &job.argv));
    set_number(env, told, "isReported", (job.flags & REPORT) != 0);
    set_number(env, told, "isCell", (job.flags & NOTEBOOK) != 0);
    set_number(env, told, "seed", chance[0]);
    set_number(env, told, "skipped", chance[1]);
    return told;
}

/* Where Node.js keeps the exit code of this process: whether there is one, and which. */
static int32_t *has_code, *code;

/*
 * The program has ended, and what was to be told of that was told. What Node.js still frees is freed with the process,
 * in a machine that ends with it.
 */
static void leave(int status)
{
    fflush(NULL);
    _exit(status);
}

static void leave_at_the_end(void *unused)
{
    leave(*has_code ? *code : 0);
}

/* What process.exit() ends with. */
static napi_value really_exit(napi_env env, napi_callback_info info)
{
    size_t count = 1;
    napi_value argument;
    uint32_t status = 0;
    if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) == 0)
        napi_get_value_uint32(env, argument, &status);
    leave(status);
    return NULL;
}

/* Takes the array in which the exit code is kept, and the places there of the two. Returns what ends the process. */
static napi_value end_early(napi_env env, napi_callback_info info)
{
    size_t count = 3, length;
    napi_value arguments[3];
    uint32_t places[2];
    void *data;
    int type;
    if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != 0 ||
        napi_get_typedarray_info(env, arguments[0], &type, &length, &data, NULL, NULL) != 0 ||
        napi_get_value_uint32(env, arguments[1], &places[0]) != 0 ||
        napi_get_value_uint32(env, arguments[2], &places[1]) != 0 || places[0] >= length || places[1] >= length)
        fail("finding the exit code");
    has_code = (int32_t *)data + places[0];
    code = (int32_t *)data + places[1];
    napi_add_env_cleanup_hook(env, leave_at_the_end, NULL);
    napi_value function;
    napi_create_function(env, "reallyExit", (size_t)-1, really_exit, NULL, &function);
    return function;
}

/* Takes the kind of a record for the host, and its fields, which are texts. */
static napi_value tell(napi_env env, napi_callback_info info)
{
    enum { FIELDS = 3, FIELD_MAX = 60 << 10 };
    static char record[1 + sizeof(uint32_t) + FIELDS * (sizeof(uint32_t) + FIELD_MAX)];
    char *at = record + 1 + sizeof(uint32_t);
    size_t count = 1 + FIELDS, length;
    napi_value given[1 + FIELDS];
    uint32_t kind;
    if (napi_get_cb_info(env, info, &count, given, NULL, NULL) != 0 || napi_get_value_uint32(env, given[0], &kind) != 0)
        return NULL;
    for (size_t i = 1; i < count && i <= FIELDS; i++) {
        if (napi_get_value_string_utf8(env, given[i], at + sizeof(uint32_t), FIELD_MAX, &length) != 0)
            return NULL;
        memcpy(at, &(uint32_t){length}, sizeof(uint32_t));
        at += sizeof(uint32_t) + length;
    }
    record[0] = kind;
    memcpy(record + 1, &(uint32_t){at - record - 1 - sizeof(uint32_t)}, sizeof(uint32_t));
    prctl(PR_HOST_TELL, record, at - record);
    return NULL;
}

static void set_function(napi_env env, napi_value exports, const char *name, napi_callback *call)
{
    napi_value function;
    napi_create_function(env, name, (size_t)-1, call, NULL, &function);
    napi_set_named_property(env, exports, name, function);
}

/* Called for each thread of JavaScript that loads this. */
__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
    set_function(env, exports, "wait", wait);
    set_function(env, exports, "endEarly", end_early);
    set_function(env, exports, "tell", tell);
    return exports;
}
