/* The ordinary case of a few functions of nurseryio, in C.

   The Python code is the only source of truth. This module has no records and no state of its own
   beyond what bind() looks up: the offsets of the slots of the existing Python classes, and the
   functions that it stands before. It has two types. A Wait stands for the innermost await of an
   operation, a Runner (before 3.14) for the wrapper coroutine of a child. Each function here tests whether the
   case is ordinary. If it is not, it has changed nothing, and calls the Python function that it
   stands before.

   Rule 1: a slot is read only after a test of the object's exact type. Slots of the classes in
   `Bound` are all of the kind that holds an object or NULL.

   Rule 2: no borrowed reference is used after a call that can run other code. A call into Python
   can, and so can each Py_DECREF.

   Rule 3: an error on the way to the Python function is dropped, because that function meets it again.
   But Ctrl-C and exits are raised at once: see may_fall_back().

   Rule 4: Python code that must not be interrupted by Ctrl-C is called by a Python function of the
   engine, because functions in C have no frame that shows whose code it is: see make_child().

   Rule 5: the order of changes, and what is undone after an error, is that of the Python function.

   docs/internals/compiled.md says which function steps aside when. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#if PY_VERSION_HEX < 0x030c0000 || PY_VERSION_HEX >= 0x03100000
#error "this file is for CPython 3.12 to 3.15"
#endif
#ifdef Py_GIL_DISABLED
#error "this file is not for the free-threaded build"
#endif

/* Whether the wrapper of a child is a type here. From 3.14 on tools in other processes read the frames
   of a task's coroutine from memory, so the coroutine has to be one of Python. */
#define HAS_RUNNER (PY_VERSION_HEX < 0x030e0000)

/* Whether throw(class, error) keeps the traceback that the error has. */
#define THROW_KEEPS_TRACEBACK (PY_VERSION_HEX >= 0x030e0000)

/* -- what bind() looks up -------------------------------------------------------------------- */

#define CLASSES(X) \
    X(CancelScope) X(ChildTask) X(Deadlines) X(Extra) X(LoopState) X(Node) X(Nursery) X(Task) \
    X(TaskMaking) X(Value)

/* Class, slot. */
#define SLOTS(X) \
    X(Node, _abandoned) X(Node, _called) X(Node, _effective) X(Node, _nursery) X(Node, _task) \
    X(Node, _parent) X(Node, _reason) X(Node, _shielded) \
    X(CancelScope, _anyio_pairing) X(CancelScope, _deadline) X(CancelScope, _entered) \
    X(CancelScope, _entry) X(CancelScope, _native_requests_at_entry) X(CancelScope, _relative) \
    X(CancelScope, cancelled_caught) \
    X(Task, _abort) X(Task, _coro) X(Task, _extra) X(Task, _owns_cancel_request) \
    X(Task, _last_interrupted) X(Task, _deferred_cancel) X(Task, _name) X(Task, _park) \
    X(Task, _parent_nursery) X(Task, _yield_credit) X(Task, _shielded_step) X(Task, _started) \
    X(Task, _state) X(Task, _swallowed_cancels) X(Task, _wakeup) X(Task, _recheck_queued) \
    X(Task, asyncio_task) X(Task, scope) \
    X(Nursery, _body_running) X(Nursery, _children) X(Nursery, _closed) X(Nursery, _errors) \
    X(Nursery, _parent_task) X(Nursery, _pending_starts) X(Nursery, _state) X(Nursery, _strict) \
    X(Nursery, _waiter) X(Nursery, cancel_scope) \
    X(LoopState, armed_at) X(LoopState, deadlines) X(LoopState, loop) X(LoopState, making) \
    X(LoopState, ready) X(LoopState, recheck_queue) X(LoopState, recheck_scheduled) \
    X(LoopState, slow_exit_prediction) X(LoopState, step_hooks) X(LoopState, strict) X(Extra, custom_sleep_data) X(Value, value) \
    X(Deadlines, _heap) X(Deadlines, _sequence) \
    X(TaskMaking, bound) X(TaskMaking, code) X(TaskMaking, create_task) X(TaskMaking, factory) \
    X(TaskMaking, loop)

/* Other objects, by the name that the Python module gives them. */
#define OBJECTS(X) \
    X(AGREED) X(BACKEND) X(COUNTS_GO_STALE) X(Cancelled) X(cancelling) X(DEADLINE) X(DEADLINE_INF) \
    X(Future) X(INITIAL_YIELD_CREDIT) X(interrupt) \
    X(NO_EXTRA) X(NO_STARTS) X(NO_SWALLOWED_CANCELS) X(NativeTask) X(OrderedDict) X(ROOT) \
    X(SLOW_EXIT_PREDICTION) X(UNKNOWN) \
    X(anyio_hook_namespace) X(asyncio_tasks_namespace) X(call_later) X(cancel_failed) X(checked_coroutine) \
    X(current_task) X(defer_native_cancel) X(end_broken_off) X(expire) X(force_out) X(forget_who_awaits) X(heappush) \
    X(look_after_pause) \
    X(make_child_task) X(MAX_YIELD_CREDIT) X(modules) X(note_wakeup) X(note_who_awaits) X(plain_cancel) X(put_back) \
    X(recheck) X(records) X(reject_non_functions) X(running_loop) X(scope_namespace) \
    X(swallowing_namespace) X(unmake) X(wait_interrupted) X(wake_later)

/* The Python functions that this module stands before. */
#define ORIGINALS(X) \
    X(new_scope) X(limited) X(scope_enter) X(scope_exit) X(start_soon) X(child_ended) X(end_child) X(deliver) \
    X(collect_children) X(checkpoint) X(current_task) X(maybe_yield) X(nursery_enter) X(open_nursery) \
    X(park) X(reschedule) X(wake_first)

#define NAMES(X) \
    X(Task) X(__code__) X(__self__) X(_arm) X(_asyncio_future_blocking) X(_callbacks) X(_fail) \
    X(_fut_waiter) X(__name__) X(__qualname__) X(_spawn) X(_wake) X(append) X(appendleft) X(bridge) X(cancel) X(close) X(cr_code) X(cr_frame) X(create_task) X(done) \
    X(drop) X(error) X(heappush) X(is_closed) X(loop) X(may_have_lost_timer) X(next) X(noted) X(pop) X(popitem) \
    X(popleft) X(remove_done_callback) X(set_result) X(throw) X(time) X(unwrap)

typedef struct {
#define X(name) PyTypeObject *name;
    CLASSES(X)
#undef X
} Classes;

typedef struct {
#define X(cls, name) Py_ssize_t cls##name;
    SLOTS(X)
#undef X
} Offsets;

typedef struct {
#define X(name) PyObject *name;
    OBJECTS(X)
#undef X
} Objects;

typedef struct {
#define X(name) PyObject *name;
    ORIGINALS(X)
#undef X
} Originals;

typedef struct {
#define X(name) PyObject *name;
    NAMES(X)
#undef X
} Names;

static Classes T;
static Offsets O;
static Objects B;
static Originals P;
static Names N;
static PyObject *zero, *one;
static int bound = 0;

/* -- small parts ----------------------------------------------------------------------------- */

#define SLOT(object, name) (*(PyObject **)((char *)(object) + O.name))

#define IS(object, cls) Py_IS_TYPE((PyObject *)(object), T.cls)

/* Whether a slot is set to an object that passes a check. */
#define HOLDS(object, name, check) (SLOT(object, name) != NULL && check(SLOT(object, name)))

/* Whether a slot is set to an object of exactly a class. */
#define HOLDS_A(object, name, cls) (SLOT(object, name) != NULL && IS(SLOT(object, name), cls))

/* Set a slot. The old value may run code when it goes. */
static inline void
put(PyObject **slot, PyObject *value)
{
    PyObject *before = *slot;
    *slot = Py_NewRef(value);
    Py_XDECREF(before);
}

#define PUT(object, name, value) put(&SLOT(object, name), value)

/* Set a slot of an object that was made just now. */
#define INIT(object, name, value) (SLOT(object, name) = Py_NewRef(value))

static inline PyObject *
call1(PyObject *function, PyObject *argument)
{
    return PyObject_Vectorcall(function, &argument, 1, NULL);
}

/* These functions of asyncio, and throw() of a coroutine, are written in C. They are called without
   the interpreter's check of the recursion limit, if bind() finds that they have the usual signatures. */
static _PyCFunctionFastWithKeywords current_task_function = NULL;
static PyCFunction cancelling_function = NULL, done_function = NULL, running_loop_function = NULL;

/* The function of a method in C that takes the arguments that `flags` tell; NULL if it is another
   kind of method. The objects that it is called with are exactly of the class. */
static PyCFunction
function_of(PyTypeObject *cls, PyObject *method, int flags)
{
    if (!Py_IS_TYPE(method, &PyMethodDescr_Type) || PyDescr_TYPE(method) != cls
        || ((PyMethodDescrObject *)method)->d_method->ml_flags != flags)
        return NULL;
    return ((PyMethodDescrObject *)method)->d_method->ml_meth;
}

/* The same for the method of a name; NULL also if there is none. */
static PyCFunction
function_named(PyTypeObject *cls, PyObject *name, int flags)
{
    PyObject *method = PyObject_GetAttr((PyObject *)cls, name);
    if (method == NULL) {
        PyErr_Clear();
        return NULL;
    }
    PyCFunction function = function_of(cls, method, flags);
    Py_DECREF(method);  /* the class holds it, and does not change */
    return function;
}

static inline PyObject *
current_asyncio_task(void)
{
    PyObject *none[1] = {NULL};  /* a pointer that is not NULL: the parser of arguments is faster */
    if (current_task_function != NULL)
        return current_task_function(PyCFunction_GET_SELF(B.current_task), none, 0, NULL);
    return PyObject_Vectorcall(B.current_task, none, 0, NULL);
}

static inline PyObject *
running_loop(void)
{
    if (running_loop_function != NULL)
        return running_loop_function(PyCFunction_GET_SELF(B.running_loop), NULL);
    return PyObject_CallNoArgs(B.running_loop);
}

/* The task is an asyncio task written in C. */
static inline PyObject *
cancelling(PyObject *asyncio_task)
{
    if (cancelling_function != NULL)
        return cancelling_function(asyncio_task, NULL);
    return call1(B.cancelling, asyncio_task);
}

static PyObject *
not_bound(void)
{
    PyErr_SetString(PyExc_RuntimeError, "the module has not been bound to the classes of nurseryio");
    return NULL;
}

/* Whether the Python function may be called in the place of this one. The error that has led to
   that is dropped. It is not if it is none of Exception, such as KeyboardInterrupt. */
static int
may_fall_back(void)
{
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return 0;
        PyErr_Clear();
    }
    return 1;
}

/* Call a function as an except clause does that handles an error. What is put back afterwards is
   what the innermost coroutine itself handles, mostly nothing. PyErr_GetHandledException() also
   finds what a caller of the coroutine handles, and the coroutine would keep that. */
static PyObject *
handle(PyObject *error, PyObject *function, PyObject *const *args, Py_ssize_t number)
{
    PyObject *handled = Py_XNewRef(PyThreadState_Get()->exc_info->exc_value);
    PyErr_SetHandledException(error);
    PyObject *result = PyObject_Vectorcall(function, args, number, NULL);
    PyErr_SetHandledException(handled);
    Py_XDECREF(handled);
    return result;
}

/* Call a function as an except clause does: the error in flight is the context of what it raises.
   Afterwards the error is raised again. */
static void
clean_up(PyObject *function, PyObject *const *args, Py_ssize_t number)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *result = handle(error, function, args, number);
    if (result == NULL) {
        Py_DECREF(error);
        return;
    }
    Py_DECREF(result);
    PyErr_SetRaisedException(error);
}

/* Whether an object is a float that equals infinity. Other numbers are not ordinary. */
static inline int
is_inf(PyObject *number)
{
    return number == B.DEADLINE_INF
        || (number != NULL && PyFloat_CheckExact(number)
            && PyFloat_AS_DOUBLE(number) == Py_HUGE_VAL);
}

/* The sign of a float or an int of ordinary size that is not negative; -1 for any other object. */
static inline int
sign_of(PyObject *number)
{
    if (PyFloat_CheckExact(number)) {
        double value = PyFloat_AS_DOUBLE(number);
        return value > 0 ? 1 : value == 0 ? 0 : -1;
    }
    if (!PyLong_CheckExact(number))
        return -1;
    int overflow;
    long value = PyLong_AsLongAndOverflow(number, &overflow);
    return overflow != 0 || value < 0 ? -1 : value > 0;
}

/* The record of the running task as a new reference; NULL if there is none, perhaps with an error. */
static PyObject *
running_record(void)
{
    PyObject *asyncio_task = current_asyncio_task();
    if (asyncio_task == NULL)
        return NULL;
    PyObject *task = Py_XNewRef(PyDict_GetItemWithError(B.records, asyncio_task));
    Py_DECREF(asyncio_task);
    if (task != NULL && !IS(task, Task))
        Py_CLEAR(task);
    return task;
}

/* Nearer to the recursion limit the frame of the Python function decides what fails first. It does
   before asyncio has kept a task or a callback. */
#define STACK_NEEDED 20

static inline int
near_the_limit(void)
{
    return PyThreadState_Get()->py_recursion_remaining < STACK_NEEDED;
}

/* -- scopes ---------------------------------------------------------------------------------- */

static PyObject *
make_scope(PyObject *relative)
{
    PyObject *self = T.CancelScope->tp_alloc(T.CancelScope, 0);
    if (self == NULL)
        return NULL;
    INIT(self, CancelScope_deadline, B.DEADLINE_INF);
    INIT(self, CancelScope_relative, relative);
    INIT(self, Node_shielded, Py_False);
    INIT(self, Node_task, Py_None);
    INIT(self, Node_nursery, Py_None);
    INIT(self, Node_reason, Py_None);
    INIT(self, CancelScope_entry, Py_None);
    INIT(self, CancelScope_anyio_pairing, Py_None);
    INIT(self, Node_called, Py_False);
    INIT(self, Node_effective, Py_False);
    INIT(self, Node_abandoned, Py_False);
    INIT(self, CancelScope_entered, Py_False);
    INIT(self, CancelScopecancelled_caught, Py_False);
    return self;
}

/* Make an object as without a vectorcall slot. */
static PyObject *
call_class(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t number = PyVectorcall_NARGS(nargsf);
    PyObject *positional = PyTuple_New(number), *keywords = NULL, *result = NULL;
    if (positional == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < number; i++)
        PyTuple_SET_ITEM(positional, i, Py_NewRef(args[i]));
    if (kwnames != NULL) {
        keywords = PyDict_New();
        if (keywords == NULL)
            goto done;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++)
            if (PyDict_SetItem(keywords, PyTuple_GET_ITEM(kwnames, i), args[number + i]) < 0)
                goto done;
    }
    result = PyType_Type.tp_call(type, positional, keywords);
done:
    Py_DECREF(positional);
    Py_XDECREF(keywords);
    return result;
}

static inline int
has_no_arguments(size_t nargsf, PyObject *kwnames)
{
    return PyVectorcall_NARGS(nargsf) == 0 && (kwnames == NULL || PyTuple_GET_SIZE(kwnames) == 0);
}

/* CancelScope(), the vectorcall slot of the class. */
static PyObject *
scope_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (type == (PyObject *)T.CancelScope && has_no_arguments(nargsf, kwnames))
        return make_scope(B.DEADLINE_INF);
    return call_class(type, args, nargsf, kwnames);
}

static PyObject *
new_scope(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!bound)
        return not_bound();
    if (nargs == 0)
        return make_scope(B.DEADLINE_INF);
    if (nargs == 1 && (PyFloat_CheckExact(args[0]) || PyLong_CheckExact(args[0])))
        return make_scope(args[0]);
    return PyObject_Vectorcall(P.new_scope, args, nargs, NULL);
}

static PyObject *
limited(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!bound)
        return not_bound();
    if (nargs == 2 && args[1] == Py_False) {
        PyObject *seconds = args[0];
        if (PyFloat_CheckExact(seconds) && PyFloat_AS_DOUBLE(seconds) >= 0)
            return make_scope(seconds);
        if (PyLong_CheckExact(seconds)) {
            int overflow;
            long value = PyLong_AsLongAndOverflow(seconds, &overflow);
            if (overflow == 0 && value >= 0)
                return make_scope(seconds);
        }
    }
    return PyObject_Vectorcall(P.limited, args, nargs, NULL);
}

/* Whether heappush() would leave a new entry at the end of the heap. */
static int
is_last(PyObject *heap, double when)
{
    Py_ssize_t size = PyList_GET_SIZE(heap);
    if (size == 0)
        return 1;
    PyObject *parent = PyList_GET_ITEM(heap, (size - 1) / 2);
    if (!PyList_CheckExact(parent) || PyList_GET_SIZE(parent) != 4)
        return 0;
    PyObject *earlier = PyList_GET_ITEM(parent, 0);
    /* Of two equal deadlines the new one has the greater number. */
    return PyFloat_CheckExact(earlier) && PyFloat_AS_DOUBLE(earlier) <= when;
}

/* Add the entry of a relative deadline to the heap. Returns 0, or -1 with an error. The scope's
   slots are changed as in CancelScope.__enter__. */
static int
enter_timed(PyObject *self, PyObject *state, PyObject *deadlines, PyObject *now,
            PyObject *deadline)
{
    PyObject *sequence = PyNumber_Add(SLOT(deadlines, Deadlines_sequence), one);
    if (sequence == NULL)
        return -1;
    PUT(deadlines, Deadlines_sequence, sequence);
    PyObject *entry = PyList_New(4);
    if (entry == NULL) {
        Py_DECREF(sequence);
        return -1;
    }
    PyList_SET_ITEM(entry, 0, Py_NewRef(deadline));
    PyList_SET_ITEM(entry, 1, sequence);
    PyList_SET_ITEM(entry, 2, Py_NewRef(B.expire));
    PyList_SET_ITEM(entry, 3, Py_NewRef(self));
    PUT(self, CancelScope_entry, entry);
    PyObject *heap = Py_NewRef(SLOT(deadlines, Deadlines_heap));
    PyObject *arguments[2] = {heap, entry}, *result;
    int pushed = is_last(heap, PyFloat_AS_DOUBLE(deadline)) ? PyList_Append(heap, entry) : 1;
    if (pushed == 1) {
        result = PyObject_Vectorcall(B.heappush, arguments, 2, NULL);
        pushed = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_DECREF(heap);
    Py_DECREF(entry);
    if (pushed < 0)
        return -1;
    PyObject *armed = SLOT(state, LoopStatearmed_at);
    if (armed == NULL || !PyFloat_CheckExact(armed)) {
        PyErr_SetString(PyExc_TypeError, "LoopState.armed_at is not a float");
        return -1;
    }
    double armed_at = PyFloat_AS_DOUBLE(armed), when = PyFloat_AS_DOUBLE(deadline);
    int arm = when < armed_at;
    if (!arm && armed_at < PyFloat_AS_DOUBLE(now)) {
        PyObject *lost = PyObject_CallMethodOneArg(state, N.may_have_lost_timer, now);
        if (lost == NULL)
            return -1;
        arm = PyObject_IsTrue(lost);
        Py_DECREF(lost);
        if (arm < 0)
            return -1;
    }
    if (!arm)
        return 0;
    PyObject *next = PyObject_CallMethodNoArgs(deadlines, N.next);
    if (next == NULL)
        return -1;
    int earlier = PyObject_RichCompareBool(next, deadline, Py_LT);
    result = earlier < 0 ? NULL
        : PyObject_CallMethodOneArg(state, N._arm, earlier ? next : deadline);
    Py_DECREF(next);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

/* CancelScope.__enter__ */
static PyObject *
scope_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *task = NULL, *state = NULL, *deadlines = NULL, *now = NULL, *deadline = NULL;
    PyObject *result = NULL, *parent = NULL, *relative = NULL, *loop = NULL;
    if (!IS(self, CancelScope) || SLOT(self, CancelScope_entered) != Py_False
        || SLOT(self, Node_called) != Py_False || SLOT(self, Node_reason) != Py_None
        || !is_inf(SLOT(self, CancelScope_deadline)))
        goto original;
    relative = Py_XNewRef(SLOT(self, CancelScope_relative));
    if (relative == NULL)
        goto original;
    int sign = is_inf(relative) ? 1 : sign_of(relative);
    if (sign < 0)
        goto original;
    task = running_record();
    if (task == NULL || SLOT(task, Task_owns_cancel_request) != Py_False)
        goto original;
    parent = Py_XNewRef(SLOT(task, Taskscope));
    if (parent == NULL || !(IS(parent, CancelScope) || parent == B.ROOT)
        || SLOT(parent, Node_effective) != Py_False)
        goto original;
    if (PyDict_Contains(B.modules, B.BACKEND) != 0)
        goto original;
    PyObject *asyncio_task = SLOT(task, Taskasyncio_task);
    if (asyncio_task == NULL
        || !(IS(asyncio_task, ChildTask) || Py_IS_TYPE(asyncio_task, (PyTypeObject *)B.NativeTask)))
        goto original;
    PyObject *requests = cancelling(asyncio_task);
    if (requests == NULL)
        goto original;
    Py_DECREF(requests);
    if (requests != zero)  /* there is one object for 0 */
        goto original;
    if (!is_inf(relative)) {
        /* It is replaced while the lines that set deadlines are noted. */
        if (PyDict_GetItemWithError(B.scope_namespace, N.heappush) != B.heappush)
            goto original;
        state = Py_XNewRef(SLOT(task, Task_state));
        if (state == NULL || !IS(state, LoopState))
            goto original;
        deadlines = Py_XNewRef(SLOT(state, LoopStatedeadlines));
        if (deadlines == NULL || !IS(deadlines, Deadlines)
            || !HOLDS(deadlines, Deadlines_sequence, PyLong_CheckExact)
            || !HOLDS(deadlines, Deadlines_heap, PyList_CheckExact)
            || !HOLDS(state, LoopStatearmed_at, PyFloat_CheckExact))
            goto original;
        loop = Py_XNewRef(SLOT(state, LoopStateloop));
        if (loop == NULL)
            goto original;
        now = PyObject_CallMethodNoArgs(loop, N.time);
        if (now == NULL || !PyFloat_CheckExact(now))
            goto original;  /* which asks again */
        deadline = PyNumber_Add(now, relative);
        if (deadline == NULL || !PyFloat_CheckExact(deadline))
            goto original;
        /* A clock written in Python may have done anything. */
        if (SLOT(self, CancelScope_entered) != Py_False || SLOT(self, Node_called) != Py_False
            || SLOT(task, Taskscope) != parent || SLOT(parent, Node_effective) != Py_False
            || !HOLDS(deadlines, Deadlines_sequence, PyLong_CheckExact)
            || !HOLDS(deadlines, Deadlines_heap, PyList_CheckExact))
            goto original;
    }
    PUT(self, CancelScope_native_requests_at_entry, zero);
    PUT(self, Node_parent, parent);
    if (deadline != NULL) {
        if (sign == 0) {
            PUT(self, Node_called, Py_True);
            PUT(self, Node_reason, B.DEADLINE);
        }
        else if (enter_timed(self, state, deadlines, now, deadline) < 0)
            goto failed;
        PUT(self, CancelScope_deadline, deadline);
        PUT(self, CancelScope_relative, B.DEADLINE_INF);
    }
    PUT(self, Node_task, task);
    PUT(self, CancelScope_entered, Py_True);
    if (sign == 0) {  /* as _enter_cancelled() */
        PUT(self, Node_effective, Py_True);
        result = call1(B.recheck, task);
        if (result == NULL)
            goto failed;
        Py_DECREF(result);
    }
    PUT(task, Taskscope, self);
    result = Py_NewRef(self);
    goto done;
failed: {
        PyObject *arguments[2] = {self, task};
        clean_up(B.force_out, arguments, 2);
        goto done;
    }
original:
    if (may_fall_back())
        result = call1(P.scope_enter, self);
done:
    Py_XDECREF(task);
    Py_XDECREF(parent);
    Py_XDECREF(state);
    Py_XDECREF(deadlines);
    Py_XDECREF(now);
    Py_XDECREF(deadline);
    Py_XDECREF(relative);
    Py_XDECREF(loop);
    return result;
}

/* Deadlines.drop(entry). Returns 0, or -1 with an error. */
static int
drop(PyObject *deadlines, PyObject *entry)
{
    if (IS(deadlines, Deadlines) && PyList_CheckExact(entry) && PyList_GET_SIZE(entry) == 4) {
        if (PyList_GET_ITEM(entry, 2) == Py_None)
            return 0;
        PyObject *heap = SLOT(deadlines, Deadlines_heap);
        if (heap != NULL && PyList_CheckExact(heap)) {
            Py_ssize_t last = PyList_GET_SIZE(heap) - 1;
            if (last >= 0 && PyList_GET_ITEM(heap, last) == entry) {
                if (PyList_SetSlice(heap, last, last + 1, NULL) < 0
                    || PyList_SetItem(entry, 2, Py_NewRef(Py_None)) < 0
                    || PyList_SetItem(entry, 3, Py_NewRef(Py_None)) < 0)
                    return -1;
                return 0;
            }
        }
    }
    PyObject *result = PyObject_CallMethodOneArg(deadlines, N.drop, entry);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

/* CancelScope.__exit__ */
static PyObject *
scope_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 || !IS(self, CancelScope) || SLOT(self, Node_effective) != Py_False
        || SLOT(self, Node_shielded) != Py_False || SLOT(self, Node_nursery) != Py_None
        || SLOT(self, CancelScope_anyio_pairing) != Py_None)
        goto original;
    PyObject *task = SLOT(self, Node_task), *parent = SLOT(self, Node_parent);
    if (task == NULL || parent == NULL || !IS(task, Task) || SLOT(task, Taskscope) != self)
        goto original;
    PyObject *running = current_asyncio_task();
    if (running == NULL)
        goto original;
    /* current_task() is a function in C, and has changed nothing. */
    int same = running == SLOT(task, Taskasyncio_task);
    Py_DECREF(running);
    if (!same)
        goto original;
    PyObject *entry = SLOT(self, CancelScope_entry);
    if (entry != Py_None) {
        PyObject *state = SLOT(task, Task_state);
        if (entry == NULL || state == NULL || !IS(state, LoopState))
            goto original;
        /* Dropping first changes nothing that is seen: the scope is left in any case. An error
           leaves the rest to the original. */
        PyObject *deadlines = Py_XNewRef(SLOT(state, LoopStatedeadlines));
        if (deadlines == NULL)
            goto original;
        Py_INCREF(task);
        Py_INCREF(parent);
        Py_INCREF(entry);
        int dropped = drop(deadlines, entry);
        Py_DECREF(entry);
        Py_DECREF(deadlines);
        if (dropped < 0 || SLOT(self, Node_task) != task || SLOT(task, Taskscope) != self) {
            Py_DECREF(task);
            Py_DECREF(parent);
            goto original;
        }
        PUT(self, CancelScope_entry, Py_None);
    }
    else {
        Py_INCREF(task);
        Py_INCREF(parent);
    }
    PUT(task, Taskscope, parent);
    PUT(self, Node_task, Py_None);
    Py_DECREF(task);
    Py_DECREF(parent);
    Py_RETURN_FALSE;
original: {
        PyObject *arguments[4] = {self};
        if (nargs > 3) {
            PyErr_SetString(PyExc_TypeError, "__exit__() takes 4 positional arguments");
            return NULL;
        }
        for (Py_ssize_t i = 0; i < nargs; i++)
            arguments[i + 1] = args[i];
        if (!may_fall_back()) {
            clean_up(P.scope_exit, arguments, nargs + 1);  /* the scope is left even so */
            return NULL;
        }
        return PyObject_Vectorcall(P.scope_exit, arguments, nargs + 1, NULL);
    }
}

/* -- nurseries ------------------------------------------------------------------------------- */

/* nursery.open_nursery() */
static PyObject *
open_nursery(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (!bound)
        return not_bound();
    if (nargs != 0 || kwnames != NULL)
        return PyObject_Vectorcall(P.open_nursery, args, nargs, kwnames);
    PyObject *self = T.Nursery->tp_alloc(T.Nursery, 0);
    if (self == NULL)
        return NULL;
    SLOT(self, Nurserycancel_scope) = make_scope(B.DEADLINE_INF);
    SLOT(self, Nursery_children) = PyDict_New();
    if (SLOT(self, Nurserycancel_scope) == NULL || SLOT(self, Nursery_children) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    INIT(self, Nursery_strict, Py_None);
    INIT(self, Nursery_errors, Py_None);
    INIT(self, Nursery_waiter, Py_None);
    INIT(self, Nursery_pending_starts, B.NO_STARTS);
    INIT(self, Nursery_body_running, Py_True);
    INIT(self, Nursery_closed, Py_True);  /* until it is entered */
    return self;
}

/* -- children -------------------------------------------------------------------------------- */

/* Whether a task made directly is what loop.create_task() would make; -1 with an error. */
static int
is_plain(PyObject *making)
{
    /* The slots of a TaskMaking are set once. */
    if (SLOT(making, TaskMakingfactory) == NULL || SLOT(making, TaskMakingloop) == NULL
        || SLOT(making, TaskMakingcreate_task) == NULL || SLOT(making, TaskMakingcode) == NULL
        || SLOT(making, TaskMakingbound) == NULL)
        return 0;
    PyObject *found = PyObject_CallNoArgs(SLOT(making, TaskMakingfactory));
    if (found == NULL)
        return -1;
    Py_DECREF(found);
    if (found != Py_None)
        return 0;
    found = PyObject_GetAttr(SLOT(making, TaskMakingloop), N.create_task);
    if (found == NULL)
        return -1;
    /* A proxy of another type may equal the method. */
    int same = Py_IS_TYPE(found, Py_TYPE(SLOT(making, TaskMakingbound)))
        ? PyObject_RichCompareBool(found, SLOT(making, TaskMakingbound), Py_EQ) : 0;
    Py_DECREF(found);
    if (same <= 0)
        return same;
    if (SLOT(making, TaskMakingcode) != Py_None) {
        found = PyObject_GetAttr(SLOT(making, TaskMakingcreate_task), N.__code__);
        if (found == NULL)
            return -1;
        Py_DECREF(found);
        if (found != SLOT(making, TaskMakingcode))
            return 0;
    }
    found = PyDict_GetItemWithError(B.asyncio_tasks_namespace, N.Task);
    return found == NULL && PyErr_Occurred() ? -1 : found == B.NativeTask;
}

/* async_fn(*args) as a coroutine; the error that says what is wrong with it otherwise. */
static PyObject *
make_coroutine(PyObject *async_fn, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *coro = PyObject_Vectorcall(async_fn, args, nargs, NULL);
    if (coro == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyObject *error = PyErr_GetRaisedException();
            PyObject *functions = PyTuple_Pack(1, async_fn);
            PyErr_SetRaisedException(error);
            if (functions != NULL) {
                clean_up(B.reject_non_functions, &functions, 1);
                Py_DECREF(functions);
            }
        }
        return NULL;
    }
    if (Py_IS_TYPE(coro, &PyCoro_Type))
        return coro;
    PyObject *arguments[2] = {async_fn, coro};
    PyObject *checked = PyObject_Vectorcall(B.checked_coroutine, arguments, 2, NULL);
    Py_DECREF(coro);
    return checked;
}

static PyObject *new_runner(PyObject *task, PyObject *coro, PyObject **name);

/* Note, or forget, that the task of a nursery's block awaits a child. Python has functions for that from
   3.14 on; before, they are None. Returns 0, or -1 with an error. */
static int
tell_who_awaits(PyObject *function, PyObject *nursery, PyObject *made)
{
    if (function == Py_None)
        return 0;
    PyObject *parent = SLOT(nursery, Nursery_parent_task);
    PyObject *awaiting = parent != NULL && IS(parent, Task) ? SLOT(parent, Taskasyncio_task) : NULL;
    if (awaiting == NULL) {
        PyErr_SetString(PyExc_AttributeError, "asyncio_task");
        return -1;
    }
    PyObject *arguments[2] = {made, Py_NewRef(awaiting)};
    PyObject *result = PyObject_Vectorcall(function, arguments, 2, NULL);
    Py_DECREF(awaiting);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The record and the asyncio task of a child. Returns 0, or -1 with an error. */
static int
make_child(PyObject *self, PyObject *state, PyObject *scope, PyObject *async_fn, PyObject *coro)
{
    PyObject *made;
    PyObject *task = T.Task->tp_alloc(T.Task, 0);
    if (task == NULL)
        return -1;  /* as for an error of blank(), which is called before the try */
    INIT(task, Task_state, state);
    INIT(task, Task_coro, coro);
    INIT(task, Task_name, async_fn);
    INIT(task, Task_parent_nursery, self);
    INIT(task, Taskscope, scope);
    INIT(task, Task_started, Py_False);
    INIT(task, Task_recheck_queued, Py_False);
    INIT(task, Task_shielded_step, Py_False);
    INIT(task, Task_owns_cancel_request, Py_False);
    INIT(task, Task_deferred_cancel, Py_False);
    INIT(task, Task_yield_credit, B.INITIAL_YIELD_CREDIT);
    INIT(task, Task_park, Py_None);
    INIT(task, Task_last_interrupted, Py_None);
    INIT(task, Task_swallowed_cancels, Py_None);
    INIT(task, Task_wakeup, Py_None);
    INIT(task, Task_extra, B.NO_EXTRA);
    /* By a Python function, because Task() calls Python code that Ctrl-C must not interrupt. That
       function has called unmake() if it raises. */
    PyObject *loop = Py_NewRef(SLOT(state, LoopStateloop));
    PyObject *name, *runner = new_runner(task, coro, &name);
    if (runner != NULL) {
        PyObject *arguments[6] = {self, task, coro, loop, runner, name};
        made = PyObject_Vectorcall(B.make_child_task, arguments, 6, NULL);
        Py_DECREF(runner);
    }
    else {
        PyObject *parts[4] = {task, Py_None, Py_None, coro};
        clean_up(B.unmake, parts, 4);
        made = NULL;
    }
    Py_DECREF(loop);
    if (made == NULL) {
        Py_DECREF(task);
        return -1;
    }
    int children = HOLDS(self, Nursery_children, PyDict_CheckExact);
    if (!children)
        PyErr_SetString(PyExc_AttributeError, "_children");
    PUT(task, Taskasyncio_task, made);
    int result = 0;
    if (!children || PyDict_SetItem(B.records, made, task) < 0
        || PyDict_SetItem(SLOT(self, Nursery_children), task, Py_None) < 0
        || tell_who_awaits(B.note_who_awaits, self, made) < 0) {
        PyObject *parts[4] = {task, made, Py_None, coro};
        clean_up(B.unmake, parts, 4);
        result = -1;
    }
    Py_DECREF(made);
    Py_DECREF(task);
    return result;
}

/* Nursery.start_soon */
static PyObject *
start_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *state = NULL, *scope = NULL, *making = NULL, *coro = NULL, *result = NULL;
    if (!IS(self, Nursery) || nargs < 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0)
        || SLOT(self, Nursery_closed) != Py_False
        || near_the_limit())
        goto original;
    state = Py_XNewRef(SLOT(self, Nursery_state));
    scope = Py_XNewRef(SLOT(self, Nurserycancel_scope));
    if (state == NULL || !IS(state, LoopState) || scope == NULL || !IS(scope, CancelScope)
        || SLOT(state, LoopStateloop) == NULL || !HOLDS(self, Nursery_children, PyDict_CheckExact)
        || !HOLDS_A(self, Nursery_parent_task, Task))
        goto original;
    making = Py_XNewRef(SLOT(state, LoopStatemaking));
    if (making == NULL || !IS(making, TaskMaking))
        goto original;
    PyObject *loop = running_loop();
    if (loop == NULL)
        goto done;
    Py_DECREF(loop);
    if (loop != SLOT(state, LoopStateloop))
        goto original;
    coro = make_coroutine(args[0], args + 1, nargs - 1);
    if (coro == NULL)
        goto done;
    /* From here on the original must not be called: it would call async_fn again. */
    int plain = 0;
    if (SLOT(scope, Node_effective) == Py_False && SLOT(state, LoopStatestep_hooks) == Py_None
        && SLOT(state, LoopStateloop) != NULL) {
        plain = is_plain(making);
        if (plain < 0)
            goto done;
    }
    if (plain) {
        if (make_child(self, state, scope, args[0], coro) == 0)
            result = Py_NewRef(Py_None);
    }
    else {
        PyObject *arguments[4] = {self, coro, args[0], Py_None};
        PyObject *task = PyObject_VectorcallMethod(N._spawn, arguments, 4, NULL);
        if (task != NULL) {
            Py_DECREF(task);
            result = Py_NewRef(Py_None);
        }
    }
    goto done;
original: {
        Py_ssize_t keywords = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
        PyObject **all = PyMem_New(PyObject *, nargs + keywords + 1);
        if (all == NULL) {
            PyErr_NoMemory();
            goto done;
        }
        all[0] = self;
        for (Py_ssize_t i = 0; i < nargs + keywords; i++)
            all[i + 1] = args[i];
        result = PyObject_Vectorcall(P.start_soon, all, nargs + 1, kwnames);
        PyMem_Free(all);
    }
done:
    Py_XDECREF(state);
    Py_XDECREF(scope);
    Py_XDECREF(making);
    Py_XDECREF(coro);
    return result;
}

/* Whether two plain Cancelled have the same single argument. */
static int
same_argument(PyObject *error, PyObject *other)
{
    PyObject *args = ((PyBaseExceptionObject *)error)->args;
    PyObject *others = ((PyBaseExceptionObject *)other)->args;
    return args != NULL && others != NULL && PyTuple_CheckExact(args)
        && PyTuple_CheckExact(others) && PyTuple_GET_SIZE(args) == 1
        && PyTuple_GET_SIZE(others) == 1
        && PyTuple_GET_ITEM(args, 0) == PyTuple_GET_ITEM(others, 0);
}

/* Whether no call of Nursery.start() is under way; 0 also if that is not known. */
static inline int
has_no_starts(PyObject *self)
{
    PyObject *starts = SLOT(self, Nursery_pending_starts);
    return starts != NULL && PyDict_CheckExact(starts) && PyDict_GET_SIZE(starts) == 0;
}

static int is_done(PyObject *future);

/* Nursery._wake(), for a nursery without children whose body has ended */
static PyObject *
wake_nursery(PyObject *self)
{
    PyObject *waiter = SLOT(self, Nursery_waiter);
    if (!has_no_starts(self) || waiter == NULL
        || (waiter != Py_None && !Py_IS_TYPE(waiter, (PyTypeObject *)B.Future)))
        return PyObject_CallMethodNoArgs(self, N._wake);
    PUT(self, Nursery_closed, Py_True);
    if (waiter == Py_None)
        Py_RETURN_NONE;
    /* As task.wake_future(). */
    PyObject *callbacks = NULL, *result = NULL;
    Py_INCREF(waiter);
    int done = is_done(waiter);
    if (done > 0)
        result = Py_NewRef(Py_None);
    if (done != 0 || (callbacks = PyObject_GetAttr(waiter, N._callbacks)) == NULL)
        goto finish;
    result = PyObject_CallMethodOneArg(waiter, N.set_result, Py_None);
    if (result == NULL) {
        PyObject *arguments[2] = {waiter, callbacks};
        clean_up(B.call_later, arguments, 2);
    }
finish:
    Py_XDECREF(callbacks);
    Py_DECREF(waiter);
    return result;
}

/* Nursery._child_ended(task, error) */
static PyObject *
child_ended(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !IS(self, Nursery) || !IS(args[0], Task))
        goto original;
    PyObject *error = args[1];
    PyObject *children = SLOT(self, Nursery_children), *errors = SLOT(self, Nursery_errors);
    if (children == NULL || !PyDict_CheckExact(children))
        goto original;
    PyObject *last = NULL;
    if (error != Py_None) {
        PyTypeObject *cancelled = (PyTypeObject *)B.Cancelled;
        if (!Py_IS_TYPE(error, cancelled) || errors == NULL || !PyList_CheckExact(errors)
            || PyList_GET_SIZE(errors) == 0)
            goto original;
        last = PyList_GET_ITEM(errors, PyList_GET_SIZE(errors) - 1);
        if (!Py_IS_TYPE(last, cancelled) || !same_argument(error, last))
            goto original;
    }
    Py_INCREF(children);
    if (PyDict_DelItem(children, args[0]) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError)) {
            Py_DECREF(children);
            return NULL;
        }
        PyErr_Clear();
    }
    int empty = PyDict_GET_SIZE(children) == 0;
    Py_DECREF(children);
    /* Deleting a key runs no other code: the caller holds the record. */
    if (last != NULL && PyList_Append(errors, last) < 0)
        return NULL;
    if (empty && SLOT(self, Nursery_body_running) == Py_False)
        return wake_nursery(self);
    Py_RETURN_NONE;
original: {
        PyObject *arguments[3] = {self};
        if (nargs > 2) {
            PyErr_SetString(PyExc_TypeError, "_child_ended() takes 3 positional arguments");
            return NULL;
        }
        for (Py_ssize_t i = 0; i < nargs; i++)
            arguments[i + 1] = args[i];
        return PyObject_Vectorcall(P.child_ended, arguments, nargs + 1, NULL);
    }
}

/* task_exit.end_child(task, error) */
static PyObject *
end_child(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!bound)
        return not_bound();
    PyObject *nursery = NULL, *made = NULL, *result = NULL;
    if (nargs != 2 || !IS(args[0], Task))
        goto original;
    PyObject *task = args[0];
    made = Py_XNewRef(SLOT(task, Taskasyncio_task));
    nursery = Py_XNewRef(SLOT(task, Task_parent_nursery));
    if (nursery == NULL || !IS(nursery, Nursery)
        || SLOT(task, Taskscope) != SLOT(nursery, Nurserycancel_scope)
        || SLOT(task, Task_extra) != B.NO_EXTRA)
        goto original;
    PyObject *state = SLOT(nursery, Nursery_state), *children = SLOT(nursery, Nursery_children);
    if (state == NULL || !IS(state, LoopState) || SLOT(state, LoopStatestep_hooks) != Py_None
        || made == NULL || !IS(made, ChildTask) || children == NULL
        || !PyDict_CheckExact(children) || !HOLDS_A(nursery, Nursery_parent_task, Task))
        goto original;
    if (PyDict_DelItem(B.records, made) < 0)
        goto done;
    PUT(task, Task_owns_cancel_request, Py_False);
    PUT(task, Taskscope, B.ROOT);
    if (tell_who_awaits(B.forget_who_awaits, nursery, made) < 0)
        goto done;
    PyObject *ended[2] = {task, args[1]};
    result = child_ended(nursery, ended, 2);
    goto done;
original:
    result = PyObject_Vectorcall(P.end_child, args, nargs, NULL);
done:
    Py_XDECREF(nursery);
    Py_XDECREF(made);
    return result;
}

/* -- the runner of a child ------------------------------------------------------------------- */

/* What the asyncio task of a child steps: Nursery._run_child() for a child whose asyncio task the
   nursery has made itself. It steps the coroutine of the child's function, lets no error of it into
   the loop, and does the bookkeeping at its end.

   It has no frame. So Ctrl-C finds the beginning of the user's code by the frame of the coroutine in
   the child's record, see _core/ki.py. Tools see that coroutine too, by ChildTask.shown.

   A method of a runner does what that of a coroutine does, also if it is called by other code than
   the asyncio task. As a coroutine it has no tp_clear: the collector calls the finalizer, which
   drops the record. */

#if HAS_RUNNER

typedef enum {
    RUNNER_NEW,
    RUNNER_SUSPENDED,
    RUNNER_RUNNING,
    RUNNER_OVER,
} RunnerState;

typedef struct {
    PyObject_HEAD
    RunnerState state;
    PyObject *task;  /* the record; NULL at the end, so that no reference cycle is left */
    PyObject *coro;  /* of the child's function: exactly a coroutine */
} Runner;

static PyTypeObject Runner_Type;

#define MOST_SPARE_RUNNERS 64
static Runner *spare_runner[MOST_SPARE_RUNNERS];
static int spare_runners = 0;

/* A runner, and the name of its task as a borrowed reference; None if the Python function has to run
   the coroutine. */
static PyObject *
new_runner(PyObject *task, PyObject *coro, PyObject **name)
{
    Runner *self;
    *name = Py_None;
    if (!Py_IS_TYPE(coro, &PyCoro_Type))
        return Py_NewRef(Py_None);  /* of another kind, such as a generator */
    if (spare_runners > 0) {
        self = spare_runner[--spare_runners];
        _Py_NewReference((PyObject *)self);
    }
    else {
        self = PyObject_GC_New(Runner, &Runner_Type);
        if (self == NULL)
            return NULL;
    }
    self->state = RUNNER_NEW;
    self->task = Py_NewRef(task);
    self->coro = Py_NewRef(coro);
    *name = ((PyCoroObject *)coro)->cr_qualname;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int
runner_traverse(Runner *self, visitproc visit, void *arg)
{
    Py_VISIT(self->task);
    Py_VISIT(self->coro);
    return 0;
}

/* Whether the loop of a child is closed; -1 with an error. */
static int
loop_is_closed(PyObject *task)
{
    PyObject *state = SLOT(task, Task_state);
    if (state == NULL || !IS(state, LoopState) || SLOT(state, LoopStateloop) == NULL) {
        PyErr_SetString(PyExc_AttributeError, "loop");
        return -1;
    }
    PyObject *loop = Py_NewRef(SLOT(state, LoopStateloop));
    PyObject *closed = PyObject_CallMethodNoArgs(loop, N.is_closed);
    Py_DECREF(loop);
    if (closed == NULL)
        return -1;
    int result = PyObject_IsTrue(closed);
    Py_DECREF(closed);
    return result;
}

/* Begin a step. Returns 0, or -1 with an error if there must not be one. */
static int
runner_begin(Runner *self)
{
    if (self->state == RUNNER_OVER)
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    else if (self->state == RUNNER_RUNNING)
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    else {
        self->state = RUNNER_RUNNING;
        return 0;
    }
    return -1;
}

/* Close the coroutine of the child's function, as a coroutine that awaits it does when it is closed.
   Returns the error that the await raises then: `exit`, or that of the coroutine. Takes the
   reference. */
static PyObject *
close_inner(Runner *self, PyObject *exit)
{
    PyObject *closed = PyObject_CallMethodNoArgs(self->coro, N.close);
    if (closed == NULL)
        Py_SETREF(exit, PyErr_GetRaisedException());
    Py_XDECREF(closed);
    return exit;
}

/* The end of the child's function: what _run_child() does behind its await. `error` is NULL if the
   function has returned. Takes the reference. Returns 0, or -1 with an error. */
static int
runner_over(Runner *self, PyObject *error)
{
    PyObject *task = self->task, *result = NULL;
    int closed = 0;
    /* A call may have failed before it has reached the coroutine, which would go on waiting. In 3.12
       and 3.13 the states of a frame that has not ended and does not run are below zero. */
    if (error != NULL && ((PyCoroObject *)self->coro)->cr_frame_state < 0)
        error = close_inner(self, error);
    if (error != NULL && Py_IS_TYPE(error, (PyTypeObject *)PyExc_GeneratorExit))
        closed = loop_is_closed(task);
    if (closed > 0)
        result = Py_NewRef(Py_None);  /* on a closed loop nothing is to be changed any more */
    else if (closed == 0) {
        PyObject *arguments[2] = {task, error == NULL ? Py_None : error};
        result = end_child(NULL, arguments, 2);
    }
    if (result == NULL) {
        PyObject *failure = PyErr_GetRaisedException();
        PyObject *arguments[4] = {task, self->coro, error == NULL ? Py_None : error, failure};
        result = handle(failure, B.end_broken_off, arguments, 4);
        Py_DECREF(failure);
    }
    self->state = RUNNER_OVER;
    self->task = NULL;
    PyObject *raised = result == NULL ? PyErr_GetRaisedException() : NULL;
    Py_XDECREF(result);
    Py_DECREF(task);
    Py_XDECREF(error);
    if (raised == NULL)
        return 0;
    PyErr_SetRaisedException(raised);
    return -1;
}

/* am_send, which asyncio calls for each step that raises no error in the task. */
static PySendResult
runner_step(Runner *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (self->state == RUNNER_NEW && value != Py_None) {
        PyErr_SetString(PyExc_TypeError,
                        "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    int first = self->state == RUNNER_NEW;
    if (runner_begin(self) < 0)
        return PYGEN_ERROR;
    if (first)
        PUT(self->task, Task_started, Py_True);
    Py_INCREF(self);
    PySendResult sent = PyIter_Send(self->coro, value, result);
    if (sent == PYGEN_NEXT)
        self->state = RUNNER_SUSPENDED;
    else {
        Py_CLEAR(*result);
        int ended = runner_over(self, sent == PYGEN_ERROR ? PyErr_GetRaisedException() : NULL);
        if (ended == 0)
            *result = Py_NewRef(Py_None);
        sent = ended < 0 ? PYGEN_ERROR : PYGEN_RETURN;
    }
    Py_DECREF(self);
    return sent;
}

static PyObject *
runner_next(Runner *self)
{
    PyObject *result;
    if (runner_step(self, Py_None, &result) != PYGEN_RETURN)
        return result;
    Py_DECREF(result);  /* None: the iteration ends without a value */
    return NULL;
}

static PyObject *stepped(PyObject *yielded);

static PyObject *
runner_send(Runner *self, PyObject *value)
{
    PyObject *result;
    if (runner_step(self, value, &result) == PYGEN_RETURN)
        Py_CLEAR(result);
    return stepped(result);
}

static PyObject *raised_by_throw(PyObject *const *args, Py_ssize_t nargs);

/* coro.throw(error) of a coroutine. */
static _PyCFunctionFast throw_function = NULL;

static inline PyObject *
throw_into(PyObject *coro, PyObject *error)
{
    if (throw_function != NULL)
        return throw_function(coro, &error, 1);
    return PyObject_CallMethodOneArg(coro, N.throw, error);
}

/* Raise StopIteration(). asyncio takes the error and drops it, so the same object serves again, unless
   other code has kept it or raised it. */
static PyObject *stop = NULL;

static void
raise_stop(void)
{
    PyBaseExceptionObject *kept = (PyBaseExceptionObject *)stop;
    if (stop == NULL || Py_REFCNT(stop) != 1 || kept->traceback != NULL || kept->context != NULL
        || kept->cause != NULL || kept->notes != NULL || kept->dict != NULL) {
        PyObject *made = PyObject_CallNoArgs(PyExc_StopIteration);
        if (made == NULL)
            return;
        Py_XSETREF(stop, made);
    }
    PyErr_SetRaisedException(Py_NewRef(stop));
}

static PyObject *
runner_throw(Runner *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result = NULL, *error = raised_by_throw(args, nargs);
    if (error == NULL)
        return NULL;
    int first = self->state == RUNNER_NEW;
    if (runner_begin(self) < 0) {
        Py_DECREF(error);
        return NULL;
    }
    if (first) {
        /* No code of the wrapper has run, so the task ends with the error: see _never_ran(). */
        self->state = RUNNER_OVER;
        Py_CLEAR(self->task);
        PyErr_SetRaisedException(error);
        return NULL;
    }
    Py_INCREF(self);
    if (PyErr_GivenExceptionMatches(error, PyExc_GeneratorExit))
        error = close_inner(self, error);
    else {
        result = throw_into(self->coro, error);
        Py_CLEAR(error);
        if (result == NULL) {
            if (PyErr_ExceptionMatches(PyExc_StopIteration))
                PyErr_Clear();  /* the function has returned */
            else
                error = PyErr_GetRaisedException();
        }
    }
    if (result != NULL)
        self->state = RUNNER_SUSPENDED;
    else if (runner_over(self, error) == 0)
        raise_stop();
    Py_DECREF(self);
    return result;
}

/* Returns 0, or -1 with an error. */
static int
close_runner(Runner *self)
{
    if (self->state == RUNNER_NEW || self->state == RUNNER_OVER) {
        self->state = RUNNER_OVER;
        Py_CLEAR(self->task);
        return 0;
    }
    PyObject *exit = PyObject_CallNoArgs(PyExc_GeneratorExit);
    if (exit == NULL || runner_begin(self) < 0) {
        Py_XDECREF(exit);
        return -1;
    }
    Py_INCREF(self);
    int ended = runner_over(self, close_inner(self, exit));
    Py_DECREF(self);
    return ended;
}

static PyObject *
runner_close(Runner *self, PyObject *Py_UNUSED(ignored))
{
    if (close_runner(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void
runner_finalize(PyObject *self)
{
    if (((Runner *)self)->state != RUNNER_SUSPENDED)
        return;
    PyObject *error = PyErr_GetRaisedException();
    if (close_runner((Runner *)self) < 0)
        PyErr_WriteUnraisable(self);
    PyErr_SetRaisedException(error);
}

static void
runner_dealloc(Runner *self)
{
    if (self->state == RUNNER_SUSPENDED && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->task);
    Py_CLEAR(self->coro);
    /* A finalizer is called once for an object, so one that was called is not used again. */
    if (spare_runners < MOST_SPARE_RUNNERS && !PyObject_GC_IsFinalized((PyObject *)self))
        spare_runner[spare_runners++] = self;
    else
        PyObject_GC_Del(self);
}

/* The attributes of a coroutine. What has run and what is awaited is that of the wrapper. */

static PyObject *
runner_inside(Runner *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->state == RUNNER_SUSPENDED ? self->coro : Py_None);
}

static PyObject *
runner_running(Runner *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->state == RUNNER_RUNNING);
}

static PyObject *
runner_suspended(Runner *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->state == RUNNER_SUSPENDED);
}

static PyObject *
runner_frame(Runner *self, void *Py_UNUSED(closure))
{
    return self->state == RUNNER_OVER ? Py_NewRef(Py_None) : PyObject_GetAttr(self->coro, N.cr_frame);
}

static PyObject *
runner_code(Runner *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttr(self->coro, N.cr_code);
}

static PyObject *
runner_name(Runner *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttr(self->coro, N.__name__);
}

static PyObject *
runner_qualname(Runner *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttr(self->coro, N.__qualname__);
}

static PyGetSetDef runner_attributes[] = {
    {"__name__", (getter)runner_name, NULL, NULL, NULL},
    {"__qualname__", (getter)runner_qualname, NULL, NULL, NULL},
    {"cr_await", (getter)runner_inside, NULL, NULL, NULL},
    {"cr_code", (getter)runner_code, NULL, NULL, NULL},
    {"cr_frame", (getter)runner_frame, NULL, NULL, NULL},
    {"cr_running", (getter)runner_running, NULL, NULL, NULL},
    {"cr_suspended", (getter)runner_suspended, NULL, NULL, NULL},
    {NULL}
};

static PyMethodDef runner_methods[] = {
    {"send", (PyCFunction)runner_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))runner_throw, METH_FASTCALL, NULL},
    {"close", (PyCFunction)runner_close, METH_NOARGS, NULL},
    {NULL}
};

static PyAsyncMethods runner_as_async = {
    .am_await = PyObject_SelfIter,
    .am_send = (sendfunc)runner_step,
};

static PyTypeObject Runner_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "nurseryio._speedups.Runner",
    .tp_doc = "The wrapper coroutine of a child.",
    .tp_basicsize = sizeof(Runner),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)runner_dealloc,
    .tp_finalize = runner_finalize,
    .tp_traverse = (traverseproc)runner_traverse,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)runner_next,
    .tp_as_async = &runner_as_async,
    .tp_methods = runner_methods,
    .tp_getset = runner_attributes,
};

/* Look up what runners use. Returns 0, or -1 with an error. */
static int
bind_runner(void)
{
    PyObject *method = PyObject_GetAttr((PyObject *)&PyCoro_Type, N.throw);
    if (method == NULL)
        return -1;
    if (Py_IS_TYPE(method, &PyMethodDescr_Type)
        && ((PyMethodDescrObject *)method)->d_method->ml_flags == METH_FASTCALL)
        throw_function = (_PyCFunctionFast)(void (*)(void))
            ((PyMethodDescrObject *)method)->d_method->ml_meth;
    Py_DECREF(method);
    return PyType_Ready(&Runner_Type);
}

#else

static PyObject *
new_runner(PyObject *task, PyObject *coro, PyObject **name)
{
    *name = Py_None;
    return Py_NewRef(Py_None);
}

static int
bind_runner(void)
{
    return 0;
}

#endif

/* -- the delivery of a cancellation ---------------------------------------------------------- */

/* scope_tree._collect_children(nursery, node, flipped, todo) */
static PyObject *
collect_children(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!bound)
        return not_bound();
    if (nargs != 4 || !IS(args[0], Nursery) || !PyList_CheckExact(args[2])
        || !PyList_CheckExact(args[3]))
        goto original;
    PyObject *children = SLOT(args[0], Nursery_children), *node = args[1], *child, *value;
    if (children == NULL || !PyDict_CheckExact(children))
        goto original;
    Py_ssize_t position = 0;
    while (PyDict_Next(children, &position, &child, &value))
        if (!IS(child, Task) || SLOT(child, Taskscope) == NULL)
            goto original;
    position = 0;
    /* Nothing in this loop runs other code, so the dict cannot change. */
    while (PyDict_Next(children, &position, &child, &value)) {
        if (SLOT(child, Taskscope) == node) {
            if (PyList_Append(args[2], child) < 0)
                return NULL;
        }
        else {
            PyObject *pair = PyTuple_Pack(2, child, node);
            if (pair == NULL || PyList_Append(args[3], pair) < 0) {
                Py_XDECREF(pair);
                return NULL;
            }
            Py_DECREF(pair);
        }
    }
    Py_RETURN_NONE;
original:
    return PyObject_Vectorcall(P.collect_children, args, nargs, NULL);
}

/* Take a parked task out of its wait. Returns 1 if it is to be cancelled, 0 if it goes on waiting,
   2 if the original has to decide, perhaps with an error. Nothing has changed then. */
static int
abort_parked(PyObject *task, PyObject *abort)
{
    if (IS(abort, Nursery)) {  /* an EndlessWait */
        PUT(task, Task_abort, Py_None);
        return 0;
    }
    if (PyDict_CheckExact(abort)) {
        int there = PyDict_Contains(abort, task);
        if (there < 0 || (there && PyDict_DelItem(abort, task) < 0))
            return 2;
    }
    else if (Py_IS_TYPE(abort, (PyTypeObject *)B.OrderedDict)) {
        PyObject *arguments[3] = {abort, task, Py_None};
        PyObject *result = PyObject_VectorcallMethod(N.pop, arguments, 3, NULL);
        if (result == NULL)
            return 2;
        Py_DECREF(result);
    }
    else
        return 2;
    PUT(task, Task_abort, B.AGREED);
    return 1;
}

/* Whether request_cancel() does for a task what the Python functions do. */
static int
may_request(PyObject *task)
{
    PyObject *asyncio_task = SLOT(task, Taskasyncio_task), *scope = SLOT(task, Taskscope);
    return SLOT(task, Task_extra) == B.NO_EXTRA && SLOT(task, Task_owns_cancel_request) == Py_False
        && B.COUNTS_GO_STALE == Py_False
        && PyDict_GetItemWithError(B.anyio_hook_namespace, N.bridge) == Py_None
        && PyDict_GetItemWithError(B.swallowing_namespace, N.noted) == Py_False
        && asyncio_task != NULL && scope != NULL && IS(scope, CancelScope)
        && (IS(asyncio_task, ChildTask)
            || Py_IS_TYPE(asyncio_task, (PyTypeObject *)B.NativeTask));
}

/* cancel_ledger.request_cancel() for a task that owns no request. Returns 0, or -1 with an error. */
static int
request_cancel(PyObject *task, PyObject *asyncio_task, PyObject *scope)
{
    PyObject *before = cancelling(asyncio_task);
    if (before == NULL)
        return -1;
    PyObject *reason = SLOT(scope, Node_reason), *result;
    if (reason == NULL || reason == Py_None)
        reason = B.UNKNOWN;
    Py_INCREF(reason);
    PUT(task, Task_owns_cancel_request, Py_True);
    if (IS(asyncio_task, ChildTask)) {
        PyObject *arguments[2] = {asyncio_task, reason};
        result = PyObject_Vectorcall(B.plain_cancel, arguments, 2, NULL);
    }
    else
        result = PyObject_CallMethodOneArg(asyncio_task, N.cancel, reason);
    Py_DECREF(reason);
    if (result == NULL) {
        /* The function raises the error again, or has given it to the task. */
        PyObject *error = PyErr_GetRaisedException();
        PyObject *arguments[3] = {task, before, error};
        result = PyObject_Vectorcall(B.cancel_failed, arguments, 3, NULL);
        Py_DECREF(error);
    }
    Py_DECREF(before);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

/* delivery.interrupt() for a task whose scope is cancelled. Returns 0, or -1 with an error. */
static int
interrupt(PyObject *task)
{
    if (may_request(task)) {
        PyObject *asyncio_task = Py_NewRef(SLOT(task, Taskasyncio_task));
        PyObject *scope = Py_NewRef(SLOT(task, Taskscope));
        int failed = request_cancel(task, asyncio_task, scope);
        Py_DECREF(asyncio_task);
        Py_DECREF(scope);
        return failed;
    }
    PyObject *result = may_fall_back() ? call1(B.interrupt, task) : NULL;
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The future is exactly of asyncio's class. */
static int
is_done(PyObject *future)
{
    PyObject *result = done_function != NULL
        ? done_function(future, NULL) : PyObject_CallMethodNoArgs(future, N.done);
    if (result == NULL)
        return -1;
    int done = PyObject_IsTrue(result);
    Py_DECREF(result);
    return done;
}

/* delivery._deliver(task) */
static PyObject *
deliver(PyObject *module, PyObject *task)
{
    if (!bound)
        return not_bound();
    PyObject *asyncio_task = NULL, *park = NULL, *future = NULL, *scope = NULL, *result = NULL;
    int done;
    if (!IS(task, Task) || !may_request(task))
        goto original;
    asyncio_task = Py_NewRef(SLOT(task, Taskasyncio_task));
    scope = Py_NewRef(SLOT(task, Taskscope));
    park = Py_XNewRef(SLOT(task, Task_park));
    if (park == NULL)
        goto original;
    if (park != Py_None) {
        PyObject *abort = SLOT(task, Task_abort);
        if (abort == NULL || abort == Py_None || abort == B.AGREED
            || !Py_IS_TYPE(park, (PyTypeObject *)B.Future))
            goto original;
        done = is_done(park);
        if (done < 0)
            goto finish;
        if (done) {
            result = Py_NewRef(Py_None);
            goto finish;
        }
        Py_INCREF(abort);
        int agreed = abort_parked(task, abort);
        Py_DECREF(abort);
        if (agreed == 2)
            goto original;
        if (agreed == 0) {
            result = Py_NewRef(Py_None);
            goto finish;
        }
        if (request_cancel(task, asyncio_task, scope) < 0)
            goto finish;
        done = is_done(park);
        if (done < 0)
            goto finish;
        if (!done) {
            result = call1(B.look_after_pause, task);
            goto finish;
        }
    }
    else {
        if (SLOT(task, Task_started) != Py_True
            || SLOT(task, Task_swallowed_cancels) != Py_None)
            goto original;
        future = PyObject_GetAttr(asyncio_task, N._fut_waiter);
        if (future == NULL || !Py_IS_TYPE(future, (PyTypeObject *)B.Future)
            || future == SLOT(task, Task_last_interrupted))
            goto original;
        done = is_done(future);
        if (done < 0)
            goto finish;
        if (done)
            goto original;
        PUT(task, Task_swallowed_cancels, B.NO_SWALLOWED_CANCELS);
        if (request_cancel(task, asyncio_task, scope) < 0)
            goto finish;
        PUT(task, Task_last_interrupted, future);
    }
    if (SLOT(task, Task_recheck_queued) == Py_False) {
        PyObject *state = SLOT(task, Task_state);
        if (state == NULL || !IS(state, LoopState)
            || !HOLDS(state, LoopStaterecheck_queue, PyList_CheckExact)) {
            PyErr_SetString(PyExc_TypeError, "a task without the state of its loop");
            goto finish;
        }
        PUT(task, Task_recheck_queued, Py_True);
        if (PyList_Append(SLOT(state, LoopStaterecheck_queue), task) < 0) {
            PUT(task, Task_recheck_queued, Py_False);
            goto finish;
        }
    }
    result = Py_NewRef(Py_None);
    goto finish;
original:
    if (may_fall_back())
        result = call1(P.deliver, task);
finish:
    Py_XDECREF(asyncio_task);
    Py_XDECREF(park);
    Py_XDECREF(future);
    Py_XDECREF(scope);
    return result;
}

/* -- waking tasks ---------------------------------------------------------------------------- */

static PyObject *loop_keyword;  /* ("loop",) */

/* task.current_task() */
static PyObject *
current_task(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (!bound)
        return not_bound();
    PyObject *task = running_record();
    if (task == NULL && may_fall_back())
        task = PyObject_CallNoArgs(P.current_task);
    return task;
}

/* traps.reschedule(task, next_send). Returns 0, or -1 with an error. */
static int
wake(PyObject *task, PyObject *next_send)
{
    PyObject *state = NULL, *park = NULL, *abort = NULL, *result;
    if (!IS(task, Task) || near_the_limit())
        goto original;
    state = Py_XNewRef(SLOT(task, Task_state));
    if (state == NULL || !IS(state, LoopState))
        goto original;
    PyObject *loop = running_loop();
    Py_XDECREF(loop);
    if (loop == NULL || loop != SLOT(state, LoopStateloop))
        goto original;
    park = Py_XNewRef(SLOT(task, Task_park));
    if (park == NULL || !Py_IS_TYPE(park, (PyTypeObject *)B.Future)
        || (SLOT(task, Task_extra) != B.NO_EXTRA && !HOLDS_A(task, Task_extra, Extra)))
        goto original;
    if (SLOT(task, Task_wakeup) == NULL)
        goto original;
    if (SLOT(task, Task_wakeup) == Py_None) {
        PyObject *arguments[2] = {task, park};
        result = PyObject_Vectorcall(B.note_wakeup, arguments, 2, NULL);
        if (result == NULL)
            goto failed;
        Py_DECREF(result);
    }
    abort = Py_XNewRef(SLOT(task, Task_abort));
    if (abort == NULL)
        goto original;
    PUT(task, Task_abort, Py_None);
    if (SLOT(task, Task_extra) != B.NO_EXTRA && HOLDS_A(task, Task_extra, Extra))
        PUT(SLOT(task, Task_extra), Extracustom_sleep_data, Py_None);
    result = PyObject_CallMethodOneArg(park, N.set_result, next_send);
    if (result == NULL) {
        /* The function puts the abort function back if the task has not been woken, and raises. */
        PyObject *error = PyErr_GetRaisedException();
        PyObject *arguments[5] = {task, park, abort, next_send, error};
        result = handle(error, B.wake_later, arguments, 5);
        Py_DECREF(error);
        if (result == NULL)
            goto failed;
    }
    Py_DECREF(result);
    Py_DECREF(state);
    Py_DECREF(park);
    Py_DECREF(abort);
    return 0;
original:
    if (may_fall_back()) {
        PyObject *arguments[2] = {task, next_send};
        result = PyObject_Vectorcall(P.reschedule, arguments, 2, NULL);
        if (result != NULL) {
            Py_DECREF(result);
            Py_XDECREF(state);
            Py_XDECREF(park);
            return 0;
        }
    }
failed:
    Py_XDECREF(state);
    Py_XDECREF(park);
    Py_XDECREF(abort);
    return -1;
}

static PyObject *
reschedule(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (!bound)
        return not_bound();
    if (nargs < 1 || nargs > 2 || kwnames != NULL)
        return PyObject_Vectorcall(P.reschedule, args, nargs, kwnames);
    if (wake(args[0], nargs == 2 ? args[1] : Py_None) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* wait_queue.wake_first(queue, next_send): a tuple of the task and its entry. */
static PyObject *
wake_the_first(PyObject *queue, PyObject *next_send)
{
    PyObject *arguments[2] = {queue, Py_False};
    if (!Py_IS_TYPE(queue, (PyTypeObject *)B.OrderedDict) || PyDict_GET_SIZE(queue) == 0
        || near_the_limit()) {
        arguments[1] = next_send;
        return PyObject_Vectorcall(P.wake_first, arguments, 2, NULL);
    }
    PyObject *pair = PyObject_VectorcallMethod(N.popitem, arguments, 2, NULL);
    if (pair == NULL)
        return NULL;
    if (wake(PyTuple_GET_ITEM(pair, 0), next_send) < 0) {
        PyObject *parts[3] = {queue, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)};
        clean_up(B.put_back, parts, 3);
        Py_CLEAR(pair);
    }
    return pair;
}

static PyObject *
wake_first(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!bound)
        return not_bound();
    if (nargs < 1 || nargs > 2)
        return PyObject_Vectorcall(P.wake_first, args, nargs, NULL);
    return wake_the_first(args[0], nargs == 2 ? args[1] : Py_None);
}

/* -- waits ----------------------------------------------------------------------------------- */

/* The innermost await of an operation: what a coroutine of the Python code does from its first step
   to its end. The public functions stay coroutines in Python, which await one of these.

   A wait does nothing before its first step. Its first step does everything up to the yield at once,
   so no signal handler runs in between. If the case is not ordinary, the wait steps the
   coroutine of the Python function. */
typedef enum {
    NOTHING,     /* does not yield */
    PARK,        /* wait_queue.park() */
    YIELD,       /* wait_queue.maybe_yield(), if it yields */
    CHECKPOINT,  /* traps.checkpoint() */
    EVENT,       /* Event.wait() */
    SEND,        /* MemorySendChannel.send() */
    RECEIVE,     /* MemoryReceiveChannel._receive() */
    LEAVE,       /* nursery.wait_and_leave() */
    RECEIVE_SOME,  /* SocketStream.receive_some() */
    SEND_ALL,      /* SocketStream.send_all() */
} Kind;

typedef enum {
    NEW,
    YIELDING,   /* has yielded None */
    WAITING,    /* for its future */
    DELEGATED,  /* to the coroutine `inner` */
    OVER,
} Phase;

typedef struct {
    PyObject_HEAD
    Kind kind;
    Phase phase;
    int running;       /* a step is being made */
    PyObject *task;    /* the record */
    PyObject *queue;   /* the queue that the task is in; the Readable of a stream */
    PyObject *entry;   /* the task's entry there; an item that is sent or was taken; an argument */
    PyObject *end;     /* the end of a channel; an event; a nursery; a stream */
    PyObject *at_end;  /* the class of the error if the channel has ended */
    PyObject *future;
    PyObject *inner;   /* an iterator that yields the future; or a coroutine */
} Wait;

static PyTypeObject Wait_Type;
static PyObject *nothing;  /* the wait that does not yield */

#define MOST_SPARE 64
static Wait *spare[MOST_SPARE];
static int spares = 0;

static Wait *
new_wait(Phase phase, Kind kind, PyObject *task)
{
    Wait *self;
    if (spares > 0) {
        self = spare[--spares];
        _Py_NewReference((PyObject *)self);
    }
    else {
        self = PyObject_GC_New(Wait, &Wait_Type);
        if (self == NULL)
            return NULL;
    }
    self->kind = kind;
    self->phase = phase;
    self->running = 0;
    self->task = Py_XNewRef(task);
    self->queue = self->entry = self->end = self->at_end = self->future = self->inner = NULL;
    PyObject_GC_Track(self);
    return self;
}

static PyObject *wait_close(Wait *self, PyObject *Py_UNUSED(ignored));

static int
wait_traverse(Wait *self, visitproc visit, void *arg)
{
    Py_VISIT(self->task);
    Py_VISIT(self->queue);
    Py_VISIT(self->entry);
    Py_VISIT(self->end);
    Py_VISIT(self->at_end);
    Py_VISIT(self->future);
    Py_VISIT(self->inner);
    return 0;
}

static int
wait_clear(Wait *self)
{
    /* Code that runs while the collector clears a cycle may still find the coroutine, and step it. */
    if (self->kind != NOTHING)
        self->phase = OVER;
    Py_CLEAR(self->task);
    Py_CLEAR(self->queue);
    Py_CLEAR(self->entry);
    Py_CLEAR(self->end);
    Py_CLEAR(self->at_end);
    Py_CLEAR(self->future);
    Py_CLEAR(self->inner);
    return 0;
}

/* A wait that is dropped in the middle is closed, as a coroutine is. That happens if the interpreter
   cannot go on with the coroutine that awaits it, for example because a trace function has raised. */
static void
wait_finalize(PyObject *wait)
{
    Wait *self = (Wait *)wait;
    if (self->running || (self->phase != YIELDING && self->phase != WAITING))
        return;
    PyObject *error = PyErr_GetRaisedException();
    PyObject *result = wait_close(self, NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(wait);
    else
        Py_DECREF(result);
    PyErr_SetRaisedException(error);
}

static void
wait_dealloc(Wait *self)
{
    if ((self->phase == YIELDING || self->phase == WAITING)
        && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;  /* it is alive again */
    PyObject_GC_UnTrack(self);
    wait_clear(self);
    if (spares < MOST_SPARE && !PyObject_GC_IsFinalized((PyObject *)self))
        spare[spares++] = self;
    else
        PyObject_GC_Del(self);
}

/* Return a result, as the tp_iternext of an awaitable does. Takes the reference. */
static PyObject *
returned(PyObject *result)
{
    if (result == NULL)
        return NULL;
    if (result != Py_None) {
        PyObject *stop = result;
        if (PyTuple_Check(result) || PyExceptionInstance_Check(result))
            stop = call1(PyExc_StopIteration, result);  /* else it would be the arguments */
        if (stop != NULL)
            PyErr_SetObject(PyExc_StopIteration, stop);
        if (stop != result)
            Py_XDECREF(stop);
    }
    Py_DECREF(result);
    return NULL;
}

/* Step the coroutine of the Python function in the place of this wait. Takes the reference. */
static PyObject *
delegate(Wait *self, PyObject *coro)
{
    if (coro == NULL || !may_fall_back()) {
        Py_XDECREF(coro);
        self->phase = OVER;
        return NULL;
    }
    self->inner = coro;
    self->phase = DELEGATED;
    PyObject *result;
    switch (PyIter_Send(coro, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        self->phase = OVER;
        return returned(result);
    default:
        self->phase = OVER;
        return NULL;
    }
}

/* Whether a wait is for an operation on a stream. */
static inline int
is_on_stream(Wait *self)
{
    return self->kind == RECEIVE_SOME || self->kind == SEND_ALL;
}

/* Whether a task is in a scope that is not cancelled, on a loop that the library knows. */
static inline int
is_calm(PyObject *task)
{
    PyObject *scope = SLOT(task, Taskscope);
    return scope != NULL && (IS(scope, CancelScope) || scope == B.ROOT)
        && SLOT(scope, Node_effective) == Py_False && HOLDS_A(task, Task_state, LoopState);
}

/* Whether a task may wait in a queue by park_now(). */
static int
may_park(PyObject *task, PyObject *queue)
{
    PyObject *other, *value;
    Py_ssize_t position = 0;
    if (!PyDict_CheckExact(queue) && !Py_IS_TYPE(queue, (PyTypeObject *)B.OrderedDict))
        return 0;
    /* All tasks of a queue are of one loop. So any of them will do, and this one is found fastest. */
    if (!PyDict_Next(queue, &position, &other, &value))
        return 1;
    return IS(other, Task) && SLOT(other, Task_state) == SLOT(task, Task_state);
}

/* Make the future that a wait waits for. Returns 0, or -1 with an error. */
static int
make_future(Wait *self, PyObject *state)
{
    PyObject *loop = Py_XNewRef(SLOT(state, LoopStateloop));
    if (loop == NULL) {
        PyErr_SetString(PyExc_AttributeError, "loop");
        return -1;
    }
    self->future = PyObject_Vectorcall(B.Future, &loop, 0, loop_keyword);
    Py_DECREF(loop);
    if (self->future == NULL)
        return -1;
    if (!Py_IS_TYPE(self->future, (PyTypeObject *)B.Future)) {
        PyErr_SetString(PyExc_TypeError, "asyncio.Future() is not a Future");
        return -1;
    }
    self->inner = Py_TYPE(self->future)->tp_as_async->am_await(self->future);
    return self->inner == NULL ? -1 : 0;
}

/* Yield the future of a wait. */
static PyObject *
yield_future(Wait *self)
{
    PyObject *result;
    switch (PyIter_Send(self->inner, Py_None, &result)) {
    case PYGEN_NEXT:
        self->phase = WAITING;
        return result;
    case PYGEN_RETURN:
        Py_DECREF(result);
        PyErr_SetString(PyExc_RuntimeError, "a new future is done");
        return NULL;
    default:
        return NULL;
    }
}

/* Put the task of a wait into a queue, and yield the future that it waits for. */
static PyObject *
park_now(Wait *self)
{
    PyObject *task = self->task, *yielded;
    if (make_future(self, SLOT(task, Task_state)) < 0)
        goto failed;
    PUT(task, Task_abort, self->queue);
    PUT(task, Task_park, self->future);
    if (PyObject_SetItem(self->queue, task, self->entry) == 0
        && (yielded = yield_future(self)) != NULL)
        return yielded;
    PUT(task, Task_park, Py_None);
    PUT(task, Task_abort, Py_None);
failed:
    self->phase = OVER;
    return NULL;
}

/* Change the number of tasks that wait on an end. Returns 0, or -1 with an error. */
static int count_waiting(PyObject *end, PyObject *(*change)(PyObject *, PyObject *));

static void convert_end(PyObject *at_end);

/* Whether the recheck of a task is queued and scheduled. */
static inline int
is_rechecked(PyObject *task)
{
    return SLOT(task, Task_recheck_queued) == Py_True && HOLDS_A(task, Task_state, LoopState)
        && SLOT(SLOT(task, Task_state), LoopStaterecheck_scheduled) == Py_True;
}

/* The end of a wait in a queue. `outcome` is the result of the future; NULL if an error is set. Takes
   the reference. */
static PyObject *
park_over(Wait *self, PyObject *outcome)
{
    PyObject *task = self->task, *result;
    PyObject *error = outcome == NULL ? PyErr_GetRaisedException() : NULL;
    self->phase = OVER;
    if (error != NULL && !(Py_IS_TYPE(error, (PyTypeObject *)B.Cancelled)
                           && SLOT(task, Task_abort) == B.AGREED
                           && PyDict_Contains(self->queue, task) == 0)) {
        /* It returns the outcome if one was handed over; None if the error is to be raised. */
        PyErr_Clear();
        PyObject *arguments[4] = {task, self->queue, self->future, error};
        outcome = handle(error, B.wait_interrupted, arguments, 4);
        if (outcome != Py_None)
            Py_SETREF(error, outcome == NULL ? PyErr_GetRaisedException() : NULL);
        else
            Py_CLEAR(outcome);
    }
    PUT(task, Task_park, Py_None);
    PUT(task, Task_abort, Py_None);
    PUT(task, Task_yield_credit, B.MAX_YIELD_CREDIT);
    if (!is_calm(task) && !is_rechecked(task)) {
        PyObject *scope = Py_XNewRef(SLOT(task, Taskscope));
        if (scope == NULL || SLOT(scope, Node_effective) != Py_False) {
            result = error == NULL ? call1(B.recheck, task) : handle(error, B.recheck, &task, 1);
            if (result == NULL)
                Py_XSETREF(error, PyErr_GetRaisedException());
            else
                Py_DECREF(result);
        }
        Py_XDECREF(scope);
    }
    if (self->kind != EVENT && self->end != NULL
        && count_waiting(self->end, PyNumber_Subtract) < 0)
        Py_XSETREF(error, PyErr_GetRaisedException());
    /* An error's traceback holds the frame that holds this wait. */
    Py_CLEAR(self->future);
    Py_CLEAR(self->inner);
    if (error != NULL) {
        Py_XDECREF(outcome);
        PyErr_SetRaisedException(error);
        return NULL;
    }
    if (outcome == Py_None)
        return returned(outcome);
    if (IS(outcome, Value) && SLOT(outcome, Valuevalue) != NULL)
        result = Py_NewRef(SLOT(outcome, Valuevalue));
    else
        result = PyObject_CallMethodNoArgs(outcome, N.unwrap);
    Py_DECREF(outcome);
    if (result == NULL && self->at_end != NULL)
        convert_end(self->at_end);
    return returned(result);
}

/* Yield once, without being cancelled by a scope meanwhile. */
static PyObject *
yield_now(Wait *self)
{
    PUT(self->task, Task_yield_credit, B.MAX_YIELD_CREDIT);
    PUT(self->task, Task_shielded_step, Py_True);
    self->phase = YIELDING;
    Py_RETURN_NONE;
}

static void put_item_back(Wait *self);
static PyObject *leave_yielded(Wait *self);
static PyObject *leave_waited(Wait *self, PyObject *outcome);
static PyObject *stream_yielded(Wait *self);

/* The end of a yield, perhaps with an error set. */
static PyObject *
yield_over(Wait *self)
{
    PyObject *task = self->task;
    if (self->kind == LEAVE)
        return leave_yielded(self);
    if (is_on_stream(self))
        return stream_yielded(self);
    self->phase = OVER;
    if (self->kind == CHECKPOINT) {
        if (!PyErr_Occurred() && SLOT(task, Task_extra) != B.NO_EXTRA
            && HOLDS_A(task, Task_extra, Extra))
            PUT(SLOT(task, Task_extra), Extracustom_sleep_data, Py_None);
        return NULL;
    }
    if (PyErr_Occurred()) {
        PyObject *error = PyErr_GetRaisedException();
        if (PyObject_TypeCheck(error, (PyTypeObject *)B.Cancelled)) {
            PyObject *arguments[2] = {task, error};
            PyObject *result = handle(error, B.defer_native_cancel, arguments, 2);
            Py_SETREF(error, result == NULL ? PyErr_GetRaisedException() : NULL);
            Py_XDECREF(result);
        }
        PUT(task, Task_shielded_step, Py_False);
        if (error != NULL) {
            PyErr_SetRaisedException(error);
            if (self->kind == RECEIVE)
                put_item_back(self);
            return NULL;
        }
    }
    else
        PUT(task, Task_shielded_step, Py_False);
    if (self->kind == RECEIVE) {
        PyObject *item = self->entry;
        self->entry = NULL;
        return returned(item);
    }
    return NULL;
}

/* The number of yields that a task may still skip; 0 if that is not known. */
static inline long
credit_of(PyObject *task)
{
    PyObject *credit = SLOT(task, Task_yield_credit);
    int overflow;
    return credit != NULL && PyLong_CheckExact(credit)
        ? PyLong_AsLongAndOverflow(credit, &overflow) : 0;
}

/* Returns 0, or -1 with an error. */
static int
set_credit(PyObject *task, long credit)
{
    PyObject *number = PyLong_FromLong(credit);
    if (number == NULL)
        return -1;
    PUT(task, Task_yield_credit, number);
    Py_DECREF(number);
    return 0;
}

/* Use one yield that the task may skip. Returns 0, or -1 with an error. */
static inline int
use_credit(PyObject *task)
{
    return set_credit(task, credit_of(task) - 1);
}

/* Whether the operation of a task has to yield; if not, the credit is used. -1 with an error. */
static int
must_yield(PyObject *task)
{
    if (credit_of(task) <= 0)
        return 1;
    PyObject *ready = Py_XNewRef(SLOT(SLOT(task, Task_state), LoopStateready));
    if (ready == NULL)
        return 1;
    int others = PyObject_IsTrue(ready);
    Py_DECREF(ready);
    return others != 0 ? others : use_credit(task);
}

/* -- channels -- */

#define CHANNEL_CLASSES(X) \
    X(ChannelEnd) X(ChannelState) X(MemoryReceiveChannel) X(MemorySendChannel) X(deque)

#define CHANNEL_SLOTS(X) \
    X(ChannelEnd, _closed) X(ChannelEnd, _state) X(ChannelEnd, _waiting) \
    X(ChannelState, buffer) X(ChannelState, max_buffer_size) X(ChannelState, open_receivers) \
    X(ChannelState, open_senders) X(ChannelState, peak) X(ChannelState, receivers) \
    X(ChannelState, senders)

static struct {
#define X(name) PyTypeObject *name;
    CHANNEL_CLASSES(X)
#undef X
} C;

static struct {
#define X(cls, name) Py_ssize_t cls##name;
    CHANNEL_SLOTS(X)
#undef X
} CO;

static PyObject *original_send, *original_receive, *raise_at_end;
static PyCFunction append_function = NULL, popleft_function = NULL;
static long initial_credit;
static int channels_bound = 0;

#define CSLOT(object, name) (*(PyObject **)((char *)(object) + CO.name))

static int
count_waiting(PyObject *end, PyObject *(*change)(PyObject *, PyObject *))
{
    PyObject *number = CSLOT(end, ChannelEnd_waiting);
    if (number == NULL || !PyLong_CheckExact(number)) {
        PyErr_SetString(PyExc_AttributeError, "_waiting");
        return -1;
    }
    number = change(number, one);
    if (number == NULL)
        return -1;
    put(&CSLOT(end, ChannelEnd_waiting), number);
    Py_DECREF(number);
    return 0;
}

/* Append to the deque of a channel. Returns 0, or -1 with an error. */
static int
append(PyObject *buffer, PyObject *item)
{
    PyObject *result = append_function(buffer, item);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Raise the error that the caller of receive() gets, if the channel has ended. */
static void
convert_end(PyObject *at_end)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *arguments[2] = {at_end, error};
    PyObject *result = handle(error, raise_at_end, arguments, 2);
    Py_XDECREF(result);
    Py_DECREF(error);
}

/* Put an item that was taken back into the buffer. Returns 0, or -1 with an error. */
static int
append_left(PyObject *state, PyObject *item)
{
    PyObject *buffer = Py_XNewRef(CSLOT(state, ChannelStatebuffer)), *result;
    if (buffer == NULL)  /* the collector has cleared the state before the coroutine was stepped */
        result = PyErr_Format(PyExc_AttributeError, "buffer");
    else
        result = PyObject_CallMethodOneArg(buffer, N.appendleft, item);
    Py_XDECREF(buffer);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static void
put_item_back(Wait *self)
{
    PyObject *error = PyErr_GetRaisedException();
    if (append_left(self->queue, self->entry) < 0)
        Py_DECREF(error);
    else
        PyErr_SetRaisedException(error);
}

/* The state of the channel of an open end, if it is as expected; NULL otherwise. A borrowed
   reference. */
static PyObject *
channel_state(PyObject *end)
{
    PyObject *state = CSLOT(end, ChannelEnd_state);
    if (state == NULL || !Py_IS_TYPE(state, C.ChannelState)
        || CSLOT(end, ChannelEnd_closed) != Py_False
        || CSLOT(end, ChannelEnd_waiting) == NULL
        || !PyLong_CheckExact(CSLOT(end, ChannelEnd_waiting)))
        return NULL;
    PyObject *buffer = CSLOT(state, ChannelStatebuffer);
    PyObject *senders = CSLOT(state, ChannelStatesenders);
    PyObject *receivers = CSLOT(state, ChannelStatereceivers);
    PyObject *peak = CSLOT(state, ChannelStatepeak);
    if (buffer == NULL || !Py_IS_TYPE(buffer, C.deque) || senders == NULL
        || !Py_IS_TYPE(senders, (PyTypeObject *)B.OrderedDict) || receivers == NULL
        || !Py_IS_TYPE(receivers, (PyTypeObject *)B.OrderedDict) || peak == NULL
        || !PyLong_CheckExact(peak) || CSLOT(state, ChannelStateopen_senders) == NULL
        || CSLOT(state, ChannelStateopen_receivers) == NULL)
        return NULL;
    return state;
}

/* The running task, if an operation on a channel does not have to look for a cancellation. */
static PyObject *
calm_task(void)
{
    PyObject *task = running_record();
    if (task != NULL
        && (!is_calm(task) || SLOT(task, Task_deferred_cancel) != Py_False || near_the_limit()))
        Py_CLEAR(task);
    return task;
}

/* The state of the channel, as above, if the running task may operate on an end of it in the ordinary
   way; NULL otherwise, perhaps with an error. `task` is set to a new reference, or to NULL. */
static PyObject *
calm_state(PyObject *end, PyObject **task)
{
    *task = calm_task();
    return *task == NULL ? NULL : channel_state(end);
}

/* Whether the next operation of a task on a channel does not yield, whoever else could run. */
static inline int
has_channel_credit(PyObject *task)
{
    return credit_of(task) > initial_credit;
}

/* The end of an operation on a channel that has completed. */
static PyObject *
channel_yield(Wait *self)
{
    int yields = has_channel_credit(self->task) ? use_credit(self->task) : must_yield(self->task);
    if (yields > 0)
        return yield_now(self);
    self->phase = OVER;
    if (self->kind == RECEIVE) {
        if (yields < 0) {
            put_item_back(self);
            return NULL;
        }
        PyObject *item = self->entry;
        self->entry = NULL;
        return returned(item);
    }
    return NULL;
}

/* Wait in a queue of a channel; counted on the end. */
static PyObject *
channel_park(Wait *self)
{
    if (count_waiting(self->end, PyNumber_Add) < 0) {
        self->phase = OVER;
        return NULL;
    }
    PyObject *future = park_now(self);
    if (future == NULL) {
        PyObject *error = PyErr_GetRaisedException();
        if (count_waiting(self->end, PyNumber_Subtract) < 0)
            PyErr_Clear();
        PyErr_SetRaisedException(error);
    }
    return future;
}

/* Hand a value to the first receiver, or put it into the buffer. Returns 1 if it is done, 0 if there
   is no room, 2 if that is not known, -1 with an error. */
static int
put_value(PyObject *state, PyObject *value)
{
    PyObject *receivers = CSLOT(state, ChannelStatereceivers);
    if (PyDict_GET_SIZE(receivers) > 0) {
        PyObject *outcome = T.Value->tp_alloc(T.Value, 0);
        if (outcome == NULL)
            return -1;
        INIT(outcome, Valuevalue, value);
        Py_INCREF(receivers);
        PyObject *pair = wake_the_first(receivers, outcome);
        Py_DECREF(receivers);
        Py_DECREF(outcome);
        Py_XDECREF(pair);
        return pair == NULL ? -1 : 1;
    }
    PyObject *buffer = CSLOT(state, ChannelStatebuffer);
    PyObject *limit = CSLOT(state, ChannelStatemax_buffer_size);
    Py_ssize_t used = Py_SIZE(buffer);
    if (!is_inf(limit)) {
        int overflow;
        if (limit == NULL || !PyLong_CheckExact(limit))
            return 2;
        if (used >= PyLong_AsLongAndOverflow(limit, &overflow) && overflow <= 0)
            return 0;
    }
    Py_INCREF(buffer);
    int failed = append(buffer, value);
    Py_DECREF(buffer);
    if (failed < 0)
        return -1;
    if (used >= PyLong_AsSsize_t(CSLOT(state, ChannelStatepeak))) {
        PyObject *peak = PyLong_FromSsize_t(used + 1);
        if (peak == NULL)
            return -1;
        put(&CSLOT(state, ChannelStatepeak), peak);
        Py_DECREF(peak);
    }
    return 1;
}

/* The first step of MemorySendChannel.send(). */
static PyObject *
send_first(Wait *self)
{
    PyObject *end = self->end, *state = calm_state(end, &self->task);
    if (state == NULL || CSLOT(state, ChannelStateopen_receivers) == zero)
        goto original;
    Py_INCREF(state);
    int done = put_value(state, self->entry);
    if (done == 1) {
        Py_DECREF(state);
        return channel_yield(self);
    }
    if (done == 0 && may_park(self->task, CSLOT(state, ChannelStatesenders))) {
        PyObject *entry = PyTuple_Pack(2, end, self->entry);
        if (entry != NULL) {
            Py_SETREF(self->entry, entry);
            self->queue = Py_NewRef(CSLOT(state, ChannelStatesenders));
            Py_DECREF(state);
            return channel_park(self);
        }
        done = -1;
    }
    Py_DECREF(state);
    if (done == -1)
        goto failed;
original:
    if (may_fall_back()) {
        PyObject *arguments[2] = {end, self->entry};
        return delegate(self, PyObject_Vectorcall(original_send, arguments, 2, NULL));
    }
failed:
    self->phase = OVER;
    return NULL;
}

/* What send() begins with: whether it is done, without a yield. */
static PyObject *
send_at_once(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    int done = 0;
    if (!channels_bound)
        return not_bound();
    if (nargs == 2 && Py_IS_TYPE(args[0], C.MemorySendChannel)) {
        PyObject *task, *state = calm_state(args[0], &task);
        if (state != NULL && CSLOT(state, ChannelStateopen_receivers) != zero
            && has_channel_credit(task)) {
            Py_INCREF(state);
            done = put_value(state, args[1]);
            Py_DECREF(state);
            if (done == 1 && use_credit(task) < 0)
                done = -1;
        }
        Py_XDECREF(task);
        if (done < 0 || !may_fall_back())
            return NULL;
    }
    return PyBool_FromLong(done == 1);
}

static PyObject *
call_receive(PyObject *end, PyObject *at_end)
{
    PyObject *arguments[2] = {end, at_end};
    return PyObject_Vectorcall(original_receive, arguments, 2, NULL);
}

/* Whether a receiver does not have to wait. */
static inline int
has_item(PyObject *state)
{
    return Py_SIZE(CSLOT(state, ChannelStatebuffer)) > 0
        || PyDict_GET_SIZE(CSLOT(state, ChannelStatesenders)) > 0;
}

/* The first item of a channel, in whose buffer the first sender puts its own. */
static PyObject *
take_item(PyObject *state)
{
    PyObject *senders = CSLOT(state, ChannelStatesenders), *item = NULL;
    PyObject *buffer = Py_NewRef(CSLOT(state, ChannelStatebuffer));
    int failed = 0;
    if (PyDict_GET_SIZE(senders) > 0) {
        Py_INCREF(senders);
        PyObject *pair = wake_the_first(senders, Py_None);
        Py_DECREF(senders);
        failed = -1;
        if (pair != NULL) {
            PyObject *entry = PyTuple_GET_ITEM(pair, 1);
            if (PyTuple_CheckExact(entry) && PyTuple_GET_SIZE(entry) == 2)
                failed = append(buffer, PyTuple_GET_ITEM(entry, 1));
            else
                PyErr_SetString(PyExc_TypeError, "the entry of a sender is not a pair");
            Py_DECREF(pair);
        }
    }
    if (!failed)
        item = popleft_function(buffer, NULL);
    Py_DECREF(buffer);
    return item;
}

/* The first step of MemoryReceiveChannel._receive(). */
static PyObject *
receive_first(Wait *self)
{
    PyObject *end = self->end, *state = calm_state(end, &self->task);
    if (state == NULL)
        goto original;
    if (!has_item(state)) {
        PyObject *receivers = CSLOT(state, ChannelStatereceivers);
        if (CSLOT(state, ChannelStateopen_senders) == zero || !may_park(self->task, receivers))
            goto original;
        self->queue = Py_NewRef(receivers);
        self->entry = Py_NewRef(end);
        return channel_park(self);
    }
    self->queue = Py_NewRef(state);  /* for put_item_back() */
    self->entry = take_item(state);
    if (self->entry != NULL)
        return channel_yield(self);
    self->phase = OVER;
    return NULL;
original:
    if (may_fall_back())
        return delegate(self, call_receive(end, self->at_end));
    self->phase = OVER;
    return NULL;
}

/* What receive() begins with: `received[channel]` is an item, if there is one that can be taken
   without a yield; else `received` itself. It is not a call, because the interpreter runs signal
   handlers after a call. One that raises an error would lose the item. */
static PyObject *
receive_at_once(PyObject *self, PyObject *end)
{
    PyObject *item = NULL;
    if (!channels_bound)
        return not_bound();
    if (Py_IS_TYPE(end, C.MemoryReceiveChannel)) {
        PyObject *task, *state = calm_state(end, &task);
        int ready = state != NULL && has_channel_credit(task) && has_item(state);
        if (ready) {
            Py_INCREF(state);
            item = take_item(state);
            if (item == self) {  /* somebody has sent this object */
                ready = append_left(state, item) < 0;
                Py_CLEAR(item);
            }
            else if (item != NULL && use_credit(task) < 0)
                Py_CLEAR(item);  /* never: these numbers exist already */
            Py_DECREF(state);
        }
        Py_XDECREF(task);
        if (item == NULL && (ready || !may_fall_back()))
            return NULL;
    }
    return item != NULL ? item : Py_NewRef(self);
}

static PyMappingMethods received_as_mapping = {.mp_subscript = receive_at_once};

static PyTypeObject Received_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "nurseryio._speedups.Received",
    .tp_doc = "The items of channels that can be received without a yield.",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_mapping = &received_as_mapping,
};

/* -- events -- */

static PyTypeObject *Event = NULL;
static Py_ssize_t event_happened, event_waiting;
static PyObject *original_wait;

#define ESLOT(object, offset) (*(PyObject **)((char *)(object) + offset))

/* Event(), the vectorcall slot of the class. */
static PyObject *
event_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (type != (PyObject *)Event || !has_no_arguments(nargsf, kwnames))
        return call_class(type, args, nargsf, kwnames);
    PyObject *self = Event->tp_alloc(Event, 0);
    if (self == NULL)
        return NULL;
    ESLOT(self, event_happened) = Py_NewRef(Py_False);
    ESLOT(self, event_waiting) = PyDict_New();
    if (ESLOT(self, event_waiting) == NULL)
        Py_CLEAR(self);
    return self;
}

static PyObject *checkpoint_first(Wait *self);

/* The first step of Event.wait(). */
static PyObject *
event_first(Wait *self)
{
    PyObject *happened = ESLOT(self->end, event_happened);
    PyObject *waiting = ESLOT(self->end, event_waiting);
    if (happened == Py_True) {
        self->kind = CHECKPOINT;
        return checkpoint_first(self);
    }
    if (happened == Py_False && waiting != NULL) {
        Py_INCREF(waiting);
        self->task = running_record();
        if (self->task != NULL && is_calm(self->task) && may_park(self->task, waiting)) {
            self->queue = waiting;
            self->entry = Py_NewRef(Py_None);
            return park_now(self);
        }
        Py_DECREF(waiting);
    }
    if (may_fall_back())
        return delegate(self, call1(original_wait, self->end));
    self->phase = OVER;
    return NULL;
}

/* -- the end of a nursery's block -- */

/* The body of Nursery.__aenter__(): something to await. */
static PyObject *
enter_block(PyObject *module, PyObject *self)
{
    if (!bound)
        return not_bound();
    PyObject *scope = IS(self, Nursery) ? SLOT(self, Nurserycancel_scope) : NULL, *strict;
    if (scope == NULL || !IS(scope, CancelScope)
        || SLOT(scope, CancelScope_entered) != Py_False)
        return call1(P.nursery_enter, self);
    Py_INCREF(scope);
    PyObject *entered = scope_enter(scope, NULL);
    if (entered == NULL) {
        Py_DECREF(scope);
        return NULL;
    }
    Py_DECREF(entered);
    PyObject *task = SLOT(scope, Node_task);
    if (task == NULL || !IS(task, Task) || !HOLDS_A(task, Task_state, LoopState)) {
        PyObject *arguments[4] = {scope, Py_None, Py_None, Py_None};
        PyErr_SetString(PyExc_TypeError, "a task without the state of its loop");
        clean_up(P.scope_exit, arguments, 4);
        Py_DECREF(scope);
        return NULL;
    }
    PUT(self, Nursery_parent_task, task);
    PUT(self, Nursery_state, SLOT(task, Task_state));
    if (SLOT(self, Nursery_strict) == Py_None
        && (strict = SLOT(SLOT(self, Nursery_state), LoopStatestrict)) != NULL)
        PUT(self, Nursery_strict, strict);
    PUT(scope, Node_nursery, self);
    PUT(self, Nursery_closed, Py_False);
    Py_DECREF(scope);
    return Py_NewRef(nothing);
}

/* The state of the loop of the nursery that is left. NULL with an error, if the collector has cleared
   the nursery. A borrowed reference. */
static PyObject *
state_of_block(Wait *self)
{
    if (HOLDS_A(self->end, Nursery_state, LoopState))
        return SLOT(self->end, Nursery_state);
    PyErr_SetString(PyExc_AttributeError, "_state");
    self->phase = OVER;
    return NULL;
}

static void
stop_waiting(Wait *self)
{
    PUT(self->task, Task_park, Py_None);
    PUT(self->task, Task_abort, Py_None);
    PUT(self->end, Nursery_waiter, Py_None);
    Py_CLEAR(self->future);
    Py_CLEAR(self->inner);
}

/* The children have ended. Leave the scope, if it is a plain one that is not cancelled. */
static PyObject *
leave_over(Wait *self)
{
    PyObject *nursery = self->end, *task = self->task;
    PyObject *scope = SLOT(nursery, Nurserycancel_scope), *state = state_of_block(self);
    self->phase = OVER;
    if (state == NULL)
        return NULL;
    if (scope == NULL || !IS(scope, CancelScope) || SLOT(nursery, Nursery_errors) != Py_None
        || SLOT(scope, Node_abandoned) != Py_False || SLOT(task, Taskscope) != scope
        || SLOT(scope, Node_effective) != Py_False || SLOT(scope, Node_shielded) != Py_False
        || SLOT(scope, CancelScope_anyio_pairing) != Py_None || SLOT(scope, Node_parent) == NULL
        || SLOT(scope, CancelScope_entry) == NULL)
        return returned(Py_NewRef(Py_True));
    Py_INCREF(scope);
    if (SLOT(scope, CancelScope_entry) != Py_None) {
        PyObject *entry = Py_NewRef(SLOT(scope, CancelScope_entry));
        PyObject *deadlines = Py_XNewRef(SLOT(state, LoopStatedeadlines));
        int dropped = deadlines == NULL ? 1 : drop(deadlines, entry);
        Py_DECREF(entry);
        Py_XDECREF(deadlines);
        if (dropped != 0 || SLOT(task, Taskscope) != scope || SLOT(scope, Node_parent) == NULL) {
            Py_DECREF(scope);
            return dropped < 0 ? NULL : returned(Py_NewRef(Py_True));
        }
        PUT(scope, CancelScope_entry, Py_None);
    }
    PUT(scope, Node_nursery, Py_None);
    PyObject *parent = Py_NewRef(SLOT(scope, Node_parent));
    PUT(task, Taskscope, parent);
    PUT(scope, Node_task, Py_None);
    Py_DECREF(parent);
    Py_DECREF(scope);
    return NULL;
}

/* Wait for the children. */
static PyObject *
leave_wait(Wait *self)
{
    PyObject *yielded, *state = state_of_block(self);
    if (state == NULL)
        return NULL;
    PUT(self->task, Task_abort, self->end);
    if (make_future(self, state) == 0) {
        PUT(self->task, Task_park, self->future);
        PUT(self->end, Nursery_waiter, self->future);
        yielded = yield_future(self);
        if (yielded != NULL)
            return yielded;
    }
    stop_waiting(self);
    self->phase = OVER;
    return NULL;
}

/* The first step of the end of a block, whose task and number of children the caller has looked at. */
static PyObject *
leave_first(Wait *self)
{
    PyObject *nursery = self->end, *state = state_of_block(self);
    if (state == NULL)
        return NULL;
    if (!HOLDS_A(nursery, Nursery_parent_task, Task)
        || !HOLDS(state, LoopStateslow_exit_prediction, PyLong_CheckExact)) {
        PyErr_SetString(PyExc_TypeError, "a nursery without a task");
        self->phase = OVER;
        return NULL;
    }
    self->task = Py_NewRef(SLOT(nursery, Nursery_parent_task));
    long prediction = PyLong_AsLong(SLOT(state, LoopStateslow_exit_prediction));
    if (prediction <= 0 || SLOT(nursery, Nursery_closed) == Py_True) {
        PUT(self->task, Task_shielded_step, Py_True);
        self->phase = YIELDING;
        Py_RETURN_NONE;
    }
    PyObject *less = PyLong_FromLong(prediction - 1);
    if (less == NULL) {
        self->phase = OVER;
        return NULL;
    }
    PUT(state, LoopStateslow_exit_prediction, less);
    Py_DECREF(less);
    return leave_wait(self);
}

/* The end of the yield, perhaps with an error set. Then the caller does the rest. */
static PyObject *
leave_yielded(Wait *self)
{
    PyObject *state;
    self->phase = OVER;
    if (PyErr_Occurred() || (state = state_of_block(self)) == NULL)
        return NULL;
    PUT(self->task, Task_shielded_step, Py_False);
    if (SLOT(self->end, Nursery_closed) == Py_True)
        return leave_over(self);
    PUT(state, LoopStateslow_exit_prediction, B.SLOW_EXIT_PREDICTION);
    return leave_wait(self);
}

/* The end of the wait for the children, as in join_children(). `outcome` is the result of the future;
   NULL if an error is set. Takes the reference. */
static PyObject *
leave_waited(Wait *self, PyObject *outcome)
{
    PyObject *result = NULL, *error = outcome == NULL ? PyErr_GetRaisedException() : NULL;
    self->phase = OVER;
    if (outcome != NULL && outcome != Py_None) {  /* raised by the abort function */
        PyObject *raised = PyObject_GetAttr(outcome, N.error);
        PyObject *arguments[3] = {self->end, raised, self->task};
        if (raised != NULL)
            result = PyObject_VectorcallMethod(N._fail, arguments, 3, NULL);
        if (result == NULL)
            error = PyErr_GetRaisedException();
        Py_XDECREF(raised);
        Py_XDECREF(result);
    }
    Py_XDECREF(outcome);
    stop_waiting(self);
    if (SLOT(self->end, Nursery_closed) == Py_True && !is_calm(self->task)
        && !(error != NULL && Py_IS_TYPE(error, (PyTypeObject *)PyExc_GeneratorExit))) {
        result = error == NULL ? call1(B.recheck, self->task)
                               : handle(error, B.recheck, &self->task, 1);
        if (result == NULL)
            Py_XSETREF(error, PyErr_GetRaisedException());
        Py_XDECREF(result);
    }
    if (error != NULL) {
        PyErr_SetRaisedException(error);
        return NULL;
    }
    return SLOT(self->end, Nursery_closed) == Py_True ? leave_over(self) : leave_wait(self);
}

/* -- streams -- */

#define STREAM_CLASSES(X) \
    X(IOWaiters) X(Readable) X(Readiness) X(Socket) X(SocketStream) X(Writable)

#define STREAM_SLOTS(X) \
    X(IOWaiters, done) X(IOWaiters, waking) \
    X(Readiness, _future) X(Readiness, _keep) X(Readiness, _once) X(Readiness, _stale) \
    X(Readiness, _table) X(Readiness, _waiting) X(Readiness, armed) X(Readiness, drained) \
    X(Readiness, queue) X(Readiness, state) \
    X(Socket, _did_shutdown) \
    X(SocketStream, _reads) X(SocketStream, _receiving) X(SocketStream, _recv) \
    X(SocketStream, _send) X(SocketStream, _sending) X(SocketStream, _size) \
    X(SocketStream, socket)

#define STREAM_OBJECTS(X) \
    X(RECEIVE_MOST) X(RECEIVE_SIZE) X(original_await) X(original_ready) X(original_receive_some) \
    X(original_send_all) X(raise_for) X(send_rest) X(wake_later)

static struct {
#define X(name) PyTypeObject *name;
    STREAM_CLASSES(X)
#undef X
} S;

static struct {
#define X(cls, name) Py_ssize_t cls##name;
    STREAM_SLOTS(X)
#undef X
} SO;

static struct {
#define X(name) PyObject *name;
    STREAM_OBJECTS(X)
#undef X
} SB;

static int streams_bound = 0;

#define SSLOT(object, name) (*(PyObject **)((char *)(object) + SO.name))
#define SPUT(object, name, value) put(&SSLOT(object, name), value)

static inline int
is_readiness(PyObject *object)
{
    return Py_IS_TYPE(object, S.Readable) || Py_IS_TYPE(object, S.Writable);
}

/* Whether an object of Readiness has a future and a table as expected. */
static inline int
has_parts(PyObject *self)
{
    PyObject *future = SSLOT(self, Readiness_future), *table = SSLOT(self, Readiness_table);
    return SSLOT(self, Readiness_keep) == Py_True && future != NULL
        && Py_IS_TYPE(future, (PyTypeObject *)B.Future) && table != NULL
        && Py_IS_TYPE(table, S.IOWaiters);
}

/* Readiness.__await__() of an object that stays registered. NULL without an error if the case is
   not ordinary. */
static PyObject *
await_registered(PyObject *self)
{
    if (!has_parts(self) || SSLOT(self, Readiness_waiting) != Py_False
        || SSLOT(self, Readinessarmed) != Py_True || SSLOT(self, Readinessqueue) == NULL
        || SSLOT(self, Readiness_once) == NULL || !PyTuple_CheckExact(SSLOT(self, Readiness_once)))
        return NULL;
    PyObject *stale = Py_False;
    if (SSLOT(SSLOT(self, Readiness_table), IOWaiterswaking) != self) {
        PyObject *queue = Py_NewRef(SSLOT(self, Readinessqueue));
        Py_ssize_t ready = PyObject_Size(queue);
        Py_DECREF(queue);
        if (ready < 0)
            return NULL;
        stale = ready > 0 ? Py_True : Py_False;
    }
    SPUT(self, Readiness_stale, stale);
    SPUT(self, Readiness_waiting, Py_True);
    PyObject *future = Py_XNewRef(SSLOT(self, Readiness_future));
    PyObject *once = Py_XNewRef(SSLOT(self, Readiness_once)), *result = NULL;
    if (future == NULL || once == NULL)
        PyErr_SetString(PyExc_AttributeError, "_future");
    else if (PyObject_SetAttr(future, N._asyncio_future_blocking, Py_True) == 0)
        result = PyObject_GetIter(once);
    Py_XDECREF(future);
    Py_XDECREF(once);
    return result;
}

/* Readiness.__await__() */
static PyObject *
readiness_await(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = is_readiness(self) ? await_registered(self) : NULL;
    if (result == NULL && may_fall_back())
        result = call1(SB.original_await, self);
    return result;
}

/* Readiness._ready() */
static PyObject *
readiness_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *callbacks = NULL, *future, *table, *done, *wakeup, *context, *result;
    if (!is_readiness(self) || !has_parts(self) || SSLOT(self, Readiness_stale) != Py_False
        || near_the_limit())
        goto original;
    PyObject *state = SSLOT(self, Readinessstate);
    if (state == NULL || !IS(state, LoopState) || SLOT(state, LoopStatestep_hooks) != Py_None)
        goto original;
    future = SSLOT(self, Readiness_future);
    table = SSLOT(self, Readiness_table);
    done = SSLOT(table, IOWaitersdone);
    if (done == NULL)
        goto original;
    Py_INCREF(future);
    Py_INCREF(table);
    Py_INCREF(done);
    callbacks = PyObject_GetAttr(future, N._callbacks);
    PyObject *pair = NULL;
    if (callbacks != NULL && PyList_CheckExact(callbacks) && PyList_GET_SIZE(callbacks) == 1)
        pair = PyList_GET_ITEM(callbacks, 0);
    if (pair == NULL || !PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2
        || !PyContext_CheckExact(PyTuple_GET_ITEM(pair, 1))) {
        Py_DECREF(future);
        Py_DECREF(table);
        Py_DECREF(done);
        goto original;
    }
    wakeup = Py_NewRef(PyTuple_GET_ITEM(pair, 0));
    context = Py_NewRef(PyTuple_GET_ITEM(pair, 1));
    Py_DECREF(callbacks);
    result = PyObject_CallMethodOneArg(future, N.remove_done_callback, wakeup);
    if (result != NULL && B.forget_who_awaits != Py_None) {
        PyObject *arguments[2] = {future, PyObject_GetAttr(wakeup, N.__self__)};
        Py_SETREF(result, arguments[1] == NULL ? NULL
                  : PyObject_Vectorcall(B.forget_who_awaits, arguments, 2, NULL));
        Py_XDECREF(arguments[1]);
    }
    if (result != NULL) {
        Py_DECREF(result);
        SPUT(self, Readiness_waiting, Py_False);
        SPUT(table, IOWaiterswaking, self);
        result = NULL;
        if (PyContext_Enter(context) == 0) {
            result = call1(wakeup, done);
            if (PyContext_Exit(context) < 0)
                Py_CLEAR(result);
        }
    }
    if (result == NULL) {
        PyObject *arguments[4] = {self, future, wakeup, context};
        clean_up(SB.wake_later, arguments, 4);
    }
    PyObject *error = PyErr_GetRaisedException();
    SPUT(table, IOWaiterswaking, Py_None);
    PyErr_SetRaisedException(error);
    Py_DECREF(future);
    Py_DECREF(table);
    Py_DECREF(done);
    Py_DECREF(wakeup);
    Py_DECREF(context);
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    Py_RETURN_NONE;
original:
    Py_XDECREF(callbacks);
    return may_fall_back() ? call1(SB.original_ready, self) : NULL;
}

/* The end of an operation on a stream, perhaps with an error set. Takes the reference. */
static PyObject *
stream_over(Wait *self, PyObject *result)
{
    PyObject *error = PyErr_GetRaisedException();
    self->phase = OVER;
    if (error != NULL && PyObject_TypeCheck(error, (PyTypeObject *)PyExc_StopIteration)) {
        /* It would be taken for the result. */
        PyErr_SetString(PyExc_RuntimeError, "coroutine raised StopIteration");
        PyObject *raised = PyErr_GetRaisedException();
        PyException_SetCause(raised, Py_NewRef(error));
        PyException_SetContext(raised, error);
        error = raised;
    }
    else if (error != NULL && PyObject_TypeCheck(error, (PyTypeObject *)PyExc_OSError)) {
        PyFrameObject *frame = PyEval_GetFrame();
        if (frame != NULL) {
            /* The traceback of the cause begins in the method of the stream. */
            PyErr_SetRaisedException(error);
            PyTraceBack_Here(frame);
            error = PyErr_GetRaisedException();
        }
        PyObject *none = handle(error, SB.raise_for, &error, 1);
        if (none == NULL)
            Py_SETREF(error, PyErr_GetRaisedException());
        else
            Py_DECREF(none);
    }
    if (self->kind == RECEIVE_SOME)
        SPUT(self->end, SocketStream_receiving, Py_False);
    else
        SPUT(self->end, SocketStream_sending, Py_False);
    /* An error's traceback holds the frame that holds this wait. */
    Py_CLEAR(self->inner);
    if (error != NULL) {
        PyErr_SetRaisedException(error);
        Py_XDECREF(result);
        return NULL;
    }
    return returned(result);
}

/* Find the task of an operation on a stream, and what it awaits. Returns whether the case is ordinary
   so far; an error may be set. */
static int
stream_begin(Wait *self)
{
    PyObject *reads, *state;
    self->task = calm_task();
    if (self->task == NULL)
        return 0;
    reads = SSLOT(self->end, SocketStream_reads);
    state = SLOT(self->task, Task_state);
    if (reads == NULL || !Py_IS_TYPE(reads, S.Readable) || SSLOT(reads, Readinessstate) != state)
        return 0;
    self->queue = Py_NewRef(reads);
    return 1;
}

/* Whether an operation on a stream yields; -1 with an error. */
static int
stream_yields(Wait *self)
{
    long credit = credit_of(self->task);
    if (credit == PyLong_AsLong(B.MAX_YIELD_CREDIT))
        return 0;
    if (credit <= 0 || SSLOT(self->queue, Readinessqueue) == NULL)
        return 1;
    PyObject *ready = Py_NewRef(SSLOT(self->queue, Readinessqueue));
    int others = PyObject_IsTrue(ready);
    Py_DECREF(ready);
    return others;
}

static PyObject *receive_now(Wait *self);

/* The iterator or coroutine that an operation on a stream awaits has been stepped. */
static PyObject *
stream_stepped(Wait *self, PySendResult step, PyObject *result)
{
    switch (step) {
    case PYGEN_NEXT:
        self->phase = WAITING;
        return result;
    case PYGEN_RETURN:
        Py_DECREF(result);
        if (self->kind == SEND_ALL)
            return stream_over(self, Py_NewRef(Py_None));
        PUT(self->task, Task_yield_credit, B.MAX_YIELD_CREDIT);
        return receive_now(self);
    default:
        return stream_over(self, NULL);
    }
}

/* Await an iterator or coroutine in an operation on a stream. NULL stands for an error that is set.
   Takes the reference. */
static PyObject *
stream_await(Wait *self, PyObject *awaited)
{
    PyObject *result;
    if (awaited == NULL)
        return stream_over(self, NULL);
    Py_XSETREF(self->inner, awaited);
    PySendResult step = PyIter_Send(self->inner, Py_None, &result);
    return stream_stepped(self, step, result);
}

/* Wait until the socket can be read from. */
static PyObject *
receive_wait(Wait *self)
{
    return stream_await(self, readiness_await(self->queue, NULL));
}

/* Call recv(), and wait if there is nothing. */
static PyObject *
receive_now(Wait *self)
{
    PyObject *stream = self->end, *reads = self->queue;
    PyObject *recv = Py_XNewRef(SSLOT(stream, SocketStream_recv));
    if (recv == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_recv");
        return stream_over(self, NULL);
    }
    PyObject *data = call1(recv, self->entry);
    Py_DECREF(recv);
    if (data == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_BlockingIOError))
            return stream_over(self, NULL);
        PyErr_Clear();
        return receive_wait(self);
    }
    Py_ssize_t size = PyBytes_CheckExact(data) ? PyBytes_GET_SIZE(data) : PyObject_Size(data);
    Py_ssize_t most = PyLong_AsSsize_t(self->entry);
    if (size < 0) {
        Py_DECREF(data);
        return stream_over(self, NULL);
    }
    if (size < most) {
        SPUT(reads, Readinessdrained, Py_True);
        if (size < PyLong_AsSsize_t(SB.RECEIVE_SIZE))
            SPUT(stream, SocketStream_size, SB.RECEIVE_SIZE);
    }
    else {
        SPUT(reads, Readinessdrained, Py_False);
        PyObject *usual = SSLOT(stream, SocketStream_size);
        if (most < PyLong_AsSsize_t(SB.RECEIVE_MOST) && usual != NULL && PyLong_CheckExact(usual)
            && PyLong_AsSsize_t(usual) == most) {
            PyObject *twice = PyLong_FromSsize_t(2 * most);
            if (twice == NULL) {
                Py_DECREF(data);
                return stream_over(self, NULL);
            }
            SPUT(stream, SocketStream_size, twice);
            Py_DECREF(twice);
        }
    }
    return stream_over(self, data);
}

/* The first step of SocketStream.receive_some(). */
static PyObject *
receive_some_first(Wait *self)
{
    PyObject *stream = self->end;
    if (!stream_begin(self) || SSLOT(stream, SocketStream_receiving) != Py_False)
        goto original;
    PyObject *reads = self->queue;
    PyObject *drained = SSLOT(reads, Readinessdrained), *armed = SSLOT(reads, Readinessarmed);
    PyObject *most = self->entry == Py_None ? SSLOT(stream, SocketStream_size) : self->entry;
    if (most == NULL || !PyLong_CheckExact(most) || PyLong_AsSsize_t(most) < 1
        || (drained != Py_True && drained != Py_False) || (armed != Py_True && armed != Py_False))
        goto original;
    Py_INCREF(most);
    int yields = drained == Py_True ? 1 : stream_yields(self);
    if (yields < 0) {
        Py_DECREF(most);
        goto original;
    }
    Py_SETREF(self->entry, most);
    SPUT(stream, SocketStream_receiving, Py_True);
    if (!yields) {
        if (set_credit(self->task, credit_of(self->task) - 1) < 0)
            return stream_over(self, NULL);
        return receive_now(self);
    }
    if (drained == Py_True || armed == Py_True)
        return receive_wait(self);
    self->phase = YIELDING;
    Py_RETURN_NONE;
original:
    if (may_fall_back()) {
        PyObject *arguments[2] = {stream, self->entry};
        return delegate(self, PyObject_Vectorcall(SB.original_receive_some, arguments, 2, NULL));
    }
    self->phase = OVER;
    return NULL;
}

/* Call send(), and leave the rest to a coroutine. */
static PyObject *
send_now(Wait *self)
{
    PyObject *function = Py_XNewRef(SSLOT(self->end, SocketStream_send));
    if (function == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_send");
        return stream_over(self, NULL);
    }
    PyObject *sent = call1(function, self->entry);
    Py_DECREF(function);
    if (sent == NULL && PyErr_ExceptionMatches(PyExc_BlockingIOError)) {
        PyErr_Clear();
        sent = Py_NewRef(zero);
    }
    Py_ssize_t number = sent == NULL ? -1 : PyLong_AsSsize_t(sent);
    if (number == -1 && PyErr_Occurred()) {
        Py_XDECREF(sent);
        return stream_over(self, NULL);
    }
    if (number < PyBytes_GET_SIZE(self->entry)) {
        PyObject *arguments[4] = {self->end, self->task, self->entry, sent};
        PyObject *rest = PyObject_Vectorcall(SB.send_rest, arguments, 4, NULL);
        Py_DECREF(sent);
        return stream_await(self, rest);
    }
    Py_DECREF(sent);
    return stream_over(self, Py_NewRef(Py_None));
}

/* The first step of SocketStream.send_all(). */
static PyObject *
send_all_first(Wait *self)
{
    PyObject *stream = self->end;
    if (!PyBytes_CheckExact(self->entry) || PyBytes_GET_SIZE(self->entry) == 0
        || !stream_begin(self) || SSLOT(stream, SocketStream_sending) != Py_False)
        goto original;
    PyObject *socket = SSLOT(stream, SocketStreamsocket);
    PyObject *function = SSLOT(stream, SocketStream_send);
    if (function == NULL || function == Py_None || socket == NULL
        || !Py_IS_TYPE(socket, S.Socket) || SSLOT(socket, Socket_did_shutdown) != Py_False)
        goto original;
    int yields = stream_yields(self);
    if (yields < 0)
        goto original;
    SPUT(stream, SocketStream_sending, Py_True);
    if (!yields) {
        if (set_credit(self->task, credit_of(self->task) - 1) < 0)
            return stream_over(self, NULL);
        return send_now(self);
    }
    self->phase = YIELDING;
    Py_RETURN_NONE;
original:
    if (may_fall_back()) {
        PyObject *arguments[2] = {stream, self->entry};
        return delegate(self, PyObject_Vectorcall(SB.original_send_all, arguments, 2, NULL));
    }
    self->phase = OVER;
    return NULL;
}

/* The end of the yield of an operation on a stream, perhaps with an error set. */
static PyObject *
stream_yielded(Wait *self)
{
    if (PyErr_Occurred())
        return stream_over(self, NULL);
    PUT(self->task, Task_yield_credit, B.MAX_YIELD_CREDIT);
    return self->kind == RECEIVE_SOME ? receive_now(self) : send_now(self);
}

/* Raise an error in what an operation on a stream awaits. Takes the reference. */
static PyObject *
stream_thrown(Wait *self, PyObject *error)
{
    if (Py_IS_TYPE(self->inner, &PyTupleIter_Type)) {
        PyErr_SetRaisedException(error);
        return stream_over(self, NULL);
    }
    PyObject *result = PyObject_CallMethodOneArg(self->inner, N.throw, error);
    Py_DECREF(error);
    if (result != NULL)
        return result;
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyErr_Clear();
        return stream_stepped(self, PYGEN_RETURN, Py_NewRef(Py_None));
    }
    return stream_over(self, NULL);
}

/* -- the steps of a wait -- */

/* The first step of traps.checkpoint(). */
static PyObject *
checkpoint_first(Wait *self)
{
    self->task = running_record();
    if (self->task == NULL)
        goto original;
    if (!is_calm(self->task)) {
        PyObject *scope = SLOT(self->task, Taskscope);
        if (scope == NULL || !IS(scope, CancelScope) || SLOT(scope, Node_effective) != Py_True)
            goto original;
        if (interrupt(self->task) < 0) {
            self->phase = OVER;
            return NULL;
        }
    }
    self->phase = YIELDING;
    Py_RETURN_NONE;
original:
    if (may_fall_back())
        return delegate(self, PyObject_CallNoArgs(P.checkpoint));
    self->phase = OVER;
    return NULL;
}

static PyObject *
park_first(Wait *self)
{
    if (is_calm(self->task) && may_park(self->task, self->queue))
        return park_now(self);
    if (may_fall_back()) {
        PyObject *arguments[3] = {self->task, self->queue, self->entry};
        return delegate(self, PyObject_Vectorcall(P.park, arguments, 3, NULL));
    }
    self->phase = OVER;
    return NULL;
}

static PyObject *
do_step(Wait *self, PyObject *value)
{
    PyObject *result = NULL;
    switch (self->phase) {
    case NEW:
        switch (self->kind) {
        case PARK:
            return park_first(self);
        case YIELD:
            return yield_now(self);
        case CHECKPOINT:
            return checkpoint_first(self);
        case EVENT:
            return event_first(self);
        case SEND:
            return send_first(self);
        case RECEIVE:
            return receive_first(self);
        case LEAVE:
            return leave_first(self);
        case RECEIVE_SOME:
            return receive_some_first(self);
        case SEND_ALL:
            return send_all_first(self);
        default:
            return NULL;
        }
    case YIELDING:
        return yield_over(self);
    case WAITING:
        if (is_on_stream(self)) {
            PySendResult step = PyIter_Send(self->inner, value, &result);
            return stream_stepped(self, step, result);
        }
        if (PyIter_Send(self->inner, Py_None, &result) == PYGEN_NEXT)
            return result;
        return self->kind == LEAVE ? leave_waited(self, result) : park_over(self, result);
    case DELEGATED:
        switch (PyIter_Send(self->inner, value, &result)) {
        case PYGEN_NEXT:
            return result;
        case PYGEN_RETURN:
            self->phase = OVER;
            return returned(result);
        default:
            self->phase = OVER;
            return NULL;
        }
    default:
        if (self->kind != NOTHING)
            PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited wait");
        return NULL;
    }
}

/* Whether a wait may be stepped; if not, an error is set, which is that of a coroutine. */
static inline int
may_step(Wait *self)
{
    if (!self->running)
        return 1;
    PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    return 0;
}

static PyObject *
wait_step(Wait *self, PyObject *value)
{
    if (!may_step(self))
        return NULL;
    self->running = 1;
    PyObject *result = do_step(self, value);
    self->running = 0;
    return result;
}

static PyObject *
wait_next(Wait *self)
{
    return wait_step(self, Py_None);
}

/* A method raises StopIteration also if the result is None. */
static PyObject *
stepped(PyObject *yielded)
{
    if (yielded == NULL && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopIteration);
    return yielded;
}

static PyObject *
wait_send(Wait *self, PyObject *value)
{
    return stepped(wait_step(self, value));
}

/* Continue a wait by raising an error in it. Takes the reference. */
static PyObject *
do_throw(Wait *self, PyObject *error)
{
    PyObject *result;
    switch (self->phase) {
    case YIELDING:
        PyErr_SetRaisedException(error);
        return yield_over(self);
    case WAITING:
        if (is_on_stream(self))
            return stream_thrown(self, error);
        PyErr_SetRaisedException(error);
        return self->kind == LEAVE ? leave_waited(self, NULL) : park_over(self, NULL);
    case DELEGATED:
        result = PyObject_CallMethodOneArg(self->inner, N.throw, error);
        Py_DECREF(error);
        if (result == NULL)
            self->phase = OVER;
        return result;
    default:
        if (self->kind != NOTHING)
            self->phase = OVER;
        PyErr_SetRaisedException(error);
        return NULL;
    }
}

static PyObject *
wait_throw_error(Wait *self, PyObject *error)
{
    if (!may_step(self)) {
        Py_DECREF(error);
        return NULL;
    }
    self->running = 1;
    PyObject *result = do_throw(self, error);
    self->running = 0;
    return result;
}

/* The error that throw() raises for its arguments, which are those of a coroutine's method. */
static PyObject *
raised_by_throw(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *error;
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes 1 to 3 arguments");
        return NULL;
    }
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    PyObject *traceback = nargs > 2 && args[2] != Py_None ? args[2] : NULL;
    if (traceback != NULL && !PyTraceBack_Check(traceback))
        return PyErr_Format(PyExc_TypeError, "throw() third argument must be a traceback object");
    if (PyExceptionInstance_Check(args[0])) {
        if (value != NULL)
            return PyErr_Format(PyExc_TypeError,
                                "instance exception may not have a separate value");
        error = Py_NewRef(args[0]);
    }
    else if (PyExceptionClass_Check(args[0])) {
        int made = value == NULL ? 0 : PyObject_IsInstance(value, args[0]);
        if (made < 0)
            return NULL;
        if (made && PyExceptionInstance_Check(value))
            error = Py_NewRef(value);
        else if (value == NULL)
            error = PyObject_CallNoArgs(args[0]);
        else if (PyTuple_Check(value))
            error = PyObject_Call(args[0], value, NULL);
        else
            error = call1(args[0], value);
        if (error == NULL)
            return NULL;
        if (!PyExceptionInstance_Check(error)) {
            PyErr_Format(PyExc_TypeError,
                         "calling %R should have returned an instance of BaseException, not %s",
                         args[0], Py_TYPE(error)->tp_name);
            Py_DECREF(error);
            return NULL;
        }
    }
    else
        return PyErr_Format(PyExc_TypeError,
                            "exceptions must be classes or instances deriving from BaseException, "
                            "not %s", Py_TYPE(args[0])->tp_name);
    /* Before 3.14, with a class the traceback is that of the arguments, even if there is none. */
    if ((traceback != NULL || (error != args[0] && !THROW_KEEPS_TRACEBACK))
        && PyException_SetTraceback(error, traceback != NULL ? traceback : Py_None) < 0) {
        Py_DECREF(error);
        return NULL;
    }
    return error;
}

static PyObject *
wait_throw(Wait *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *error = raised_by_throw(args, nargs);
    return error == NULL ? NULL : stepped(wait_throw_error(self, error));
}

static PyObject *
wait_close(Wait *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (!may_step(self))
        return NULL;
    if (self->phase == NEW || self->phase == OVER) {
        if (self->kind != NOTHING)
            self->phase = OVER;
        Py_RETURN_NONE;
    }
    if (self->phase == DELEGATED) {
        result = PyObject_CallMethodNoArgs(self->inner, N.close);
        if (result != NULL)
            self->phase = OVER;
        return result;
    }
    result = PyObject_CallNoArgs(PyExc_GeneratorExit);
    if (result == NULL)
        return NULL;
    result = wait_throw_error(self, result);
    if (result != NULL) {
        Py_DECREF(result);
        PyErr_SetString(PyExc_RuntimeError, "wait ignored GeneratorExit");
        return NULL;
    }
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit)
            && !PyErr_ExceptionMatches(PyExc_StopIteration))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

/* Readers of a task's stack go on to the coroutine that does the work. */
static PyObject *
wait_inside(Wait *self, void *Py_UNUSED(closure))
{
    if (self->phase == DELEGATED || (self->phase == WAITING && is_on_stream(self)))
        return Py_NewRef(self->inner);
    Py_RETURN_NONE;
}

static PyObject *
wait_frame(Wait *self, void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

static PyGetSetDef wait_attributes[] = {
    {"cr_await", (getter)wait_inside, NULL, NULL, NULL},
    {"cr_frame", (getter)wait_frame, NULL, NULL, NULL},
    {NULL}
};

static PyMethodDef wait_methods[] = {
    {"send", (PyCFunction)wait_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))wait_throw, METH_FASTCALL, NULL},
    {"close", (PyCFunction)wait_close, METH_NOARGS, NULL},
    {NULL}
};

static PyAsyncMethods wait_as_async = {.am_await = PyObject_SelfIter};

static PyTypeObject Wait_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "nurseryio._speedups.Wait",
    .tp_doc = "The innermost await of an operation.",
    .tp_basicsize = sizeof(Wait),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)wait_dealloc,
    .tp_traverse = (traverseproc)wait_traverse,
    .tp_clear = (inquiry)wait_clear,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)wait_next,
    .tp_as_async = &wait_as_async,
    .tp_finalize = wait_finalize,
    .tp_methods = wait_methods,
    .tp_getset = wait_attributes,
};

/* wait_queue.park(task, queue, entry): something to await. */
static PyObject *
park(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!bound)
        return not_bound();
    if (nargs < 2 || nargs > 3 || !IS(args[0], Task) || !is_calm(args[0]))
        return PyObject_Vectorcall(P.park, args, nargs, NULL);
    Wait *self = new_wait(NEW, PARK, args[0]);
    if (self != NULL) {
        self->queue = Py_NewRef(args[1]);
        self->entry = Py_NewRef(nargs == 3 ? args[2] : Py_None);
    }
    return (PyObject *)self;
}

/* wait_queue.maybe_yield(task): something to await. */
static PyObject *
maybe_yield(PyObject *module, PyObject *task)
{
    if (!bound)
        return not_bound();
    if (!IS(task, Task) || !HOLDS_A(task, Task_state, LoopState))
        return call1(P.maybe_yield, task);
    int yields = must_yield(task);
    if (yields < 0)
        return NULL;
    return yields ? (PyObject *)new_wait(NEW, YIELD, task) : Py_NewRef(nothing);
}

/* The body of traps.checkpoint() awaits `checked_yield`, without a call. */
static PyObject *
checked_yield(PyObject *Py_UNUSED(self))
{
    return bound ? (PyObject *)new_wait(NEW, CHECKPOINT, NULL) : not_bound();
}

static PyAsyncMethods checked_yield_as_async = {.am_await = checked_yield};

static PyTypeObject CheckedYield_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "nurseryio._speedups.CheckedYield",
    .tp_doc = "What checkpoint() awaits.",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &checked_yield_as_async,
};

/* The body of Event.wait(): something to await. */
static PyObject *
event_wait(PyObject *module, PyObject *event)
{
    if (Event == NULL)
        return not_bound();
    if (!Py_IS_TYPE(event, Event))
        return call1(original_wait, event);
    Wait *self = new_wait(NEW, EVENT, NULL);
    if (self != NULL)
        self->end = Py_NewRef(event);
    return (PyObject *)self;
}

/* nursery.wait_and_leave(nursery): something to await. */
static PyObject *
wait_and_leave(PyObject *module, PyObject *nursery)
{
    if (!bound)
        return not_bound();
    if (!IS(nursery, Nursery))
        return PyErr_Format(PyExc_TypeError, "not a nursery");
    Wait *self = new_wait(NEW, LEAVE, NULL);
    if (self != NULL)
        self->end = Py_NewRef(nursery);
    return (PyObject *)self;
}

/* The body of MemorySendChannel.send(): something to await. */
static PyObject *
send(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!channels_bound)
        return not_bound();
    if (nargs != 2 || !Py_IS_TYPE(args[0], C.MemorySendChannel))
        return PyObject_Vectorcall(original_send, args, nargs, NULL);
    Wait *self = new_wait(NEW, SEND, NULL);
    if (self != NULL) {
        self->end = Py_NewRef(args[0]);
        self->entry = Py_NewRef(args[1]);
    }
    return (PyObject *)self;
}

/* The body of MemoryReceiveChannel._receive(): something to await. */
static PyObject *
receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!channels_bound)
        return not_bound();
    if (nargs != 2 || !Py_IS_TYPE(args[0], C.MemoryReceiveChannel))
        return PyObject_Vectorcall(original_receive, args, nargs, NULL);
    Wait *self = new_wait(NEW, RECEIVE, NULL);
    if (self != NULL) {
        self->end = Py_NewRef(args[0]);
        self->at_end = Py_NewRef(args[1]);
    }
    return (PyObject *)self;
}

/* The body of SocketStream.receive_some() and of send_all(): something to await. */
static PyObject *
on_stream(Kind kind, PyObject *original, PyObject *const *args, Py_ssize_t nargs)
{
    if (!streams_bound)
        return not_bound();
    if (nargs != 2 || !Py_IS_TYPE(args[0], S.SocketStream))
        return PyObject_Vectorcall(original, args, nargs, NULL);
    Wait *self = new_wait(NEW, kind, NULL);
    if (self != NULL) {
        self->end = Py_NewRef(args[0]);
        self->entry = Py_NewRef(args[1]);
    }
    return (PyObject *)self;
}

static PyObject *
receive_some(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return on_stream(RECEIVE_SOME, SB.original_receive_some, args, nargs);
}

static PyObject *
send_all(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return on_stream(SEND_ALL, SB.original_send_all, args, nargs);
}

/* -- the module ------------------------------------------------------------------------------ */

static PyMethodDef scope_enter_def = {"__enter__", scope_enter, METH_NOARGS, NULL};
static PyMethodDef scope_exit_def = {"__exit__", (PyCFunction)scope_exit, METH_FASTCALL, NULL};
static PyMethodDef child_ended_def = {
    "_child_ended", (PyCFunction)child_ended, METH_FASTCALL, NULL
};
static PyMethodDef start_soon_def = {
    "start_soon", (PyCFunction)(void (*)(void))start_soon, METH_FASTCALL | METH_KEYWORDS, NULL
};

/* The offset of a slot; -1 with an error if the class has no slot of this name. */
static Py_ssize_t
offset_of(PyTypeObject *cls, const char *name)
{
    PyObject *found = PyObject_GetAttrString((PyObject *)cls, name);
    if (found == NULL)
        return -1;
    Py_ssize_t offset = -1;
    if (Py_IS_TYPE(found, &PyMemberDescr_Type)) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX && !(member->flags & READONLY)
            && ((PyMemberDescrObject *)found)->d_common.d_type == cls)
            offset = member->offset;
    }
    Py_DECREF(found);
    if (offset < 0)
        PyErr_Format(PyExc_LookupError, "%s.%s is not a slot", cls->tp_name, name);
    return offset;
}

static PyObject *
look_up(PyObject *given, const char *name)
{
    PyObject *found = PyDict_GetItemString(given, name);
    if (found == NULL)
        PyErr_Format(PyExc_LookupError, "%s is missing", name);
    return Py_XNewRef(found);
}

static PyTypeObject *
look_up_class(PyObject *given, const char *name)
{
    PyObject *found = look_up(given, name);
    if (found != NULL && !PyType_Check(found)) {
        PyErr_Format(PyExc_TypeError, "%s is not a class", name);
        Py_CLEAR(found);
    }
    return (PyTypeObject *)found;
}

PyDoc_STRVAR(bind_channels_doc,
"bind_channels($module, given, /)\n--\n\n\
Look up what the channels' functions use.\n\n\
Raises LookupError or TypeError if something is not as expected. Nothing has changed then.");

static PyObject *
bind_channels(PyObject *module, PyObject *given)
{
    if (!bound)
        return not_bound();
    if (channels_bound || !PyDict_CheckExact(given)) {
        PyErr_SetString(PyExc_LookupError, "the channels are bound already");
        return NULL;
    }
#define X(name) \
    if ((C.name = look_up_class(given, #name)) == NULL) \
        return NULL;
    CHANNEL_CLASSES(X)
#undef X
#define X(cls, name) \
    if ((CO.cls##name = offset_of(C.cls, #name)) < 0) \
        return NULL;
    CHANNEL_SLOTS(X)
#undef X
    original_send = look_up(given, "original_send");
    original_receive = look_up(given, "original_receive");
    raise_at_end = look_up(given, "raise_at_end");
    if (original_send == NULL || original_receive == NULL || raise_at_end == NULL)
        return NULL;
    if (!PyType_IsSubtype(C.MemorySendChannel, C.ChannelEnd)
        || !PyType_IsSubtype(C.MemoryReceiveChannel, C.ChannelEnd))
        return PyErr_Format(PyExc_TypeError, "an object is not of the expected kind");
    append_function = function_named(C.deque, N.append, METH_O);
    popleft_function = function_named(C.deque, N.popleft, METH_NOARGS);
    if (append_function == NULL || popleft_function == NULL)  /* it may have no ob_size either */
        return PyErr_Format(PyExc_TypeError, "the deque is not that of the standard library");
    initial_credit = PyLong_AsLong(B.INITIAL_YIELD_CREDIT);
    channels_bound = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(bind_event_doc,
"bind_event($module, given, /)\n--\n\n\
Look up what the functions of events use.\n\n\
Raises LookupError or TypeError if something is not as expected. Nothing has changed then.");

static PyObject *
bind_event(PyObject *module, PyObject *given)
{
    if (!bound)
        return not_bound();
    if (Event != NULL || !PyDict_CheckExact(given)) {
        PyErr_SetString(PyExc_LookupError, "events are bound already");
        return NULL;
    }
    PyTypeObject *cls = look_up_class(given, "Event");
    if (cls == NULL || (event_happened = offset_of(cls, "_happened")) < 0
        || (event_waiting = offset_of(cls, "_waiting")) < 0
        || (original_wait = look_up(given, "original_wait")) == NULL) {
        Py_XDECREF(cls);
        return NULL;
    }
    if (cls->tp_vectorcall != NULL) {
        Py_DECREF(cls);
        return PyErr_Format(PyExc_TypeError, "an object is not of the expected kind");
    }
    Event = cls;
    Event->tp_vectorcall = event_vectorcall;
    Py_RETURN_NONE;
}

static int set_method(PyTypeObject *cls, PyMethodDef *definition);

static PyMethodDef readiness_await_def = {"__await__", readiness_await, METH_NOARGS, NULL};
static PyMethodDef readiness_ready_def = {"_ready", readiness_ready, METH_NOARGS, NULL};

PyDoc_STRVAR(bind_streams_doc,
"bind_streams($module, given, /)\n--\n\n\
Look up what the functions of streams use, and set the methods of Readiness.\n\n\
Raises LookupError or TypeError if something is not as expected. Nothing has changed then.");

static PyObject *
bind_streams(PyObject *module, PyObject *given)
{
    if (!bound)
        return not_bound();
    if (streams_bound || !PyDict_CheckExact(given)) {
        PyErr_SetString(PyExc_LookupError, "streams are bound already");
        return NULL;
    }
#define X(name) \
    if ((S.name = look_up_class(given, #name)) == NULL) \
        return NULL;
    STREAM_CLASSES(X)
#undef X
#define X(cls, name) \
    if ((SO.cls##name = offset_of(S.cls, #name)) < 0) \
        return NULL;
    STREAM_SLOTS(X)
#undef X
#define X(name) \
    if ((SB.name = look_up(given, #name)) == NULL) \
        return NULL;
    STREAM_OBJECTS(X)
#undef X
    if (!PyType_IsSubtype(S.Readable, S.Readiness) || !PyType_IsSubtype(S.Writable, S.Readiness)
        || !PyLong_CheckExact(SB.RECEIVE_MOST) || !PyLong_CheckExact(SB.RECEIVE_SIZE))
        return PyErr_Format(PyExc_TypeError, "an object is not of the expected kind");
    if (set_method(S.Readiness, &readiness_await_def) < 0
        || set_method(S.Readiness, &readiness_ready_def) < 0)
        return NULL;
    streams_bound = 1;
    Py_RETURN_NONE;
}

static int
set_method(PyTypeObject *cls, PyMethodDef *definition)
{
    PyObject *method = PyDescr_NewMethod(cls, definition);
    if (method == NULL)
        return -1;
    int result = PyObject_SetAttrString((PyObject *)cls, definition->ml_name, method);
    Py_DECREF(method);
    return result;
}

/* Give a function of the module the text of the Python function. Returns 0, or -1 with an error. */
static int
set_doc(PyObject *module, const char *name, const char *signature, PyObject *original)
{
    PyObject *function = PyObject_GetAttrString(module, name);
    if (function == NULL)
        return -1;
    if (!PyCFunction_Check(function)) {
        Py_DECREF(function);
        return 0;
    }
    PyMethodDef *definition = ((PyCFunctionObject *)function)->m_ml;
    Py_DECREF(function);
    PyObject *doc = PyObject_GetAttrString(original, "__doc__");
    if (doc == NULL)
        return -1;
    PyObject *text = PyUnicode_FromFormat("%s(%s)\n--\n\n%S", name, signature,
                                          doc);
    Py_DECREF(doc);
    if (text == NULL)
        return -1;
    /* The text is kept for as long as the process lives, as that of other functions in C. */
    const char *utf8 = PyUnicode_AsUTF8(text);
    if (utf8 == NULL)
        return -1;
    definition->ml_doc = utf8;
    return 0;
}

PyDoc_STRVAR(bind_doc,
"bind(given, start_soon_doc)\n--\n\n\
Look up what this module uses, and set the methods.\n\n\
Raises LookupError or TypeError if something is not as expected. Nothing has changed then.");

static PyObject *
bind(PyObject *module, PyObject *args)
{
    PyObject *given;
    const char *doc;
    if (!PyArg_ParseTuple(args, "O!s:bind", &PyDict_Type, &given, &doc))
        return NULL;
    if (bound) {
        PyErr_SetString(PyExc_LookupError, "the module is bound to other classes already");
        return NULL;
    }
#define X(name) \
    if ((T.name = look_up_class(given, #name)) == NULL) \
        return NULL;
    CLASSES(X)
#undef X
#define X(cls, name) \
    if ((O.cls##name = offset_of(T.cls, #name)) < 0) \
        return NULL;
    SLOTS(X)
#undef X
#define X(name) \
    if ((B.name = look_up(given, #name)) == NULL) \
        return NULL;
    OBJECTS(X)
#undef X
#define X(name) \
    if ((P.name = look_up(given, "original_" #name)) == NULL) \
        return NULL;
    ORIGINALS(X)
#undef X
#define X(name) \
    if ((N.name = PyUnicode_InternFromString(#name)) == NULL) \
        return NULL;
    NAMES(X)
#undef X
    if (!PyDict_CheckExact(B.records) || !PyDict_CheckExact(B.modules)
        || !PyDict_CheckExact(B.anyio_hook_namespace)
        || !PyDict_CheckExact(B.asyncio_tasks_namespace) || !PyDict_CheckExact(B.scope_namespace)
        || !PyDict_CheckExact(B.swallowing_namespace) || !PyFloat_CheckExact(B.DEADLINE_INF)
        || !PyType_Check(B.Cancelled) || !PyType_Check(B.Future) || !PyType_Check(B.NativeTask)
        || !PyType_Check(B.OrderedDict) || !IS(B.ROOT, Node)
        || !PyCFunction_Check(B.current_task) || !PyCFunction_Check(B.running_loop)
        || !PyType_IsSubtype(T.CancelScope, T.Node)
        || !PyType_IsSubtype((PyTypeObject *)B.Cancelled, (PyTypeObject *)PyExc_BaseException)
        || T.CancelScope->tp_vectorcall != NULL)
        return PyErr_Format(PyExc_TypeError, "an object is not of the expected kind");
    if (!PyLong_CheckExact(B.MAX_YIELD_CREDIT) || !PyLong_CheckExact(B.INITIAL_YIELD_CREDIT)
        || ((PyTypeObject *)B.Future)->tp_as_async == NULL
        || ((PyTypeObject *)B.Future)->tp_as_async->am_await == NULL)
        return PyErr_Format(PyExc_TypeError, "an object is not of the expected kind");
    zero = PyLong_FromLong(0);
    one = PyLong_FromLong(1);
    if (PyCFunction_GET_FLAGS(B.current_task) == (METH_FASTCALL | METH_KEYWORDS))
        current_task_function =
            (_PyCFunctionFastWithKeywords)(void (*)(void))PyCFunction_GET_FUNCTION(B.current_task);
    if (PyCFunction_GET_FLAGS(B.running_loop) == METH_NOARGS)
        running_loop_function = PyCFunction_GET_FUNCTION(B.running_loop);
    cancelling_function = function_of((PyTypeObject *)B.NativeTask, B.cancelling, METH_NOARGS);
    done_function = function_named((PyTypeObject *)B.Future, N.done, METH_NOARGS);
    loop_keyword = PyTuple_Pack(1, N.loop);
    if (zero == NULL || one == NULL || loop_keyword == NULL || PyType_Ready(&Wait_Type) < 0
        || bind_runner() < 0)
        return NULL;
    nothing = (PyObject *)new_wait(OVER, NOTHING, NULL);
    if (nothing == NULL)
        return NULL;
    /* The text is kept for as long as the process lives, as that of other functions in C. */
    char *text = PyMem_Malloc(strlen(doc) + 1);
    if (text == NULL)
        return PyErr_NoMemory();
    start_soon_def.ml_doc = strcpy(text, doc);
    if (set_method(T.CancelScope, &scope_enter_def) < 0
        || set_method(T.CancelScope, &scope_exit_def) < 0
        || set_method(T.Nursery, &start_soon_def) < 0
        || set_method(T.Nursery, &child_ended_def) < 0)
        return NULL;
    if (set_doc(module, "current_task", "$module", P.current_task) < 0
        || set_doc(module, "open_nursery", "$module, strict_exception_groups=None",
                   P.open_nursery) < 0
        || set_doc(module, "reschedule", "$module, task, next_send=None", P.reschedule) < 0)
        return NULL;
    T.CancelScope->tp_vectorcall = scope_vectorcall;
    bound = 1;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"bind", bind, METH_VARARGS, bind_doc},
    {"bind_channels", bind_channels, METH_O, bind_channels_doc},
    {"bind_event", bind_event, METH_O, bind_event_doc},
    {"bind_streams", bind_streams, METH_O, bind_streams_doc},
    {"collect_children", (PyCFunction)collect_children, METH_FASTCALL, NULL},
    {"current_task", current_task, METH_NOARGS, NULL},
    {"deliver", deliver, METH_O, NULL},
    {"end_child", (PyCFunction)end_child, METH_FASTCALL, NULL},
    {"enter_block", enter_block, METH_O, NULL},
    {"event_wait", event_wait, METH_O, NULL},
    {"limited", (PyCFunction)limited, METH_FASTCALL, NULL},
    {"maybe_yield", maybe_yield, METH_O, NULL},
    {"new_scope", (PyCFunction)new_scope, METH_FASTCALL, NULL},
    {"open_nursery", (PyCFunction)(void (*)(void))open_nursery, METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"park", (PyCFunction)park, METH_FASTCALL, NULL},
    {"receive", (PyCFunction)receive, METH_FASTCALL, NULL},
    {"receive_some", (PyCFunction)receive_some, METH_FASTCALL, NULL},
    {"reschedule", (PyCFunction)(void (*)(void))reschedule, METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"send", (PyCFunction)send, METH_FASTCALL, NULL},
    {"send_all", (PyCFunction)send_all, METH_FASTCALL, NULL},
    {"send_at_once", (PyCFunction)send_at_once, METH_FASTCALL, NULL},
    {"wait_and_leave", wait_and_leave, METH_O, NULL},
    {"wake_first", (PyCFunction)wake_first, METH_FASTCALL, NULL},
    {NULL}
};

/* Add the only object of a class to the module. Returns 0, or -1 with an error. */
static int
add_object_of(PyTypeObject *cls, PyObject *module, const char *name)
{
    if (PyType_Ready(cls) < 0)
        return -1;
    PyObject *object = PyObject_New(PyObject, cls);
    int failed = PyModule_AddObjectRef(module, name, object);
    Py_XDECREF(object);
    return failed;
}

static int
execute(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "this module is for the main interpreter alone");
        return -1;
    }
    if (add_object_of(&Received_Type, module, "received") < 0)
        return -1;
    return add_object_of(&CheckedYield_Type, module, "checked_yield");
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
    {0, NULL}
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "nurseryio._speedups",
    .m_doc = "The ordinary case of a few functions of nurseryio, in C.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
