/* The ordinary case of a few functions of nurseryio, in C.

   The Python code is the only source of truth. This module has no types, no records and no state of
   its own beyond what bind() looks up: the offsets of the slots of the existing Python classes, and
   the functions that it stands before. Each function here tests whether the case is ordinary. If it
   is not, it has changed nothing, and calls the Python function that it stands before.

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

#if PY_VERSION_HEX < 0x030c0000 || PY_VERSION_HEX >= 0x030e0000
#error "this file is for CPython 3.12 and 3.13"
#endif
#ifdef Py_GIL_DISABLED
#error "this file is not for the free-threaded build"
#endif

/* -- what bind() looks up -------------------------------------------------------------------- */

#define CLASSES(X) \
    X(CancelScope) X(ChildTask) X(Deadlines) X(LoopState) X(Node) X(Nursery) X(Task) X(TaskMaking)

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
    X(Nursery, _state) X(Nursery, cancel_scope) \
    X(LoopState, armed_at) X(LoopState, deadlines) X(LoopState, loop) X(LoopState, making) \
    X(LoopState, recheck_queue) X(LoopState, step_hooks) \
    X(Deadlines, _heap) X(Deadlines, _sequence) \
    X(TaskMaking, code) X(TaskMaking, create_task) X(TaskMaking, factory) \
    X(TaskMaking, loop_type) X(TaskMaking, namespace)

/* Other objects, by the name that the Python module gives them. */
#define OBJECTS(X) \
    X(AGREED) X(BACKEND) X(Cancelled) X(cancelling) X(DEADLINE_INF) X(Future) X(INITIAL_YIELD_CREDIT) \
    X(NO_EXTRA) X(NO_SWALLOWED_CANCELS) X(NativeTask) X(OrderedDict) X(ROOT) X(UNKNOWN) \
    X(anyio_hook_namespace) X(asyncio_tasks) X(cancel_failed) X(checked_coroutine) \
    X(current_task) X(expire) X(force_out) X(heappush) X(look_after_pause) X(make_child_task) X(modules) X(plain_cancel) \
    X(records) X(reject_non_functions) X(running_loop) X(scope_namespace) \
    X(swallowing_namespace) X(unmake)

/* The Python functions that this module stands before. */
#define ORIGINALS(X) \
    X(new_scope) X(limited) X(scope_enter) X(scope_exit) X(start_soon) X(child_ended) X(end_child) X(deliver) \
    X(collect_children)

#define NAMES(X) \
    X(Task) X(__code__) X(_arm) X(_fut_waiter) \
    X(_spawn) X(_wake) X(bridge) X(cancel) X(create_task) X(done) X(drop) X(heappush) \
    X(may_have_lost_timer) X(next) X(noted) X(pop) X(time)

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

/* Call a function as an except clause would: the error in flight is the context of what it raises.
   Afterwards the error is raised again. */
static void
clean_up(PyObject *function, PyObject *const *args, Py_ssize_t number)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *handled = PyErr_GetHandledException();
    PyErr_SetHandledException(error);
    PyObject *result = PyObject_Vectorcall(function, args, number, NULL);
    PyErr_SetHandledException(handled);
    Py_XDECREF(handled);
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

/* Whether an object is a float or an int of ordinary size, and greater than zero. */
static inline int
is_positive(PyObject *number)
{
    if (PyFloat_CheckExact(number))
        return PyFloat_AS_DOUBLE(number) > 0;
    if (!PyLong_CheckExact(number))
        return 0;
    int overflow;
    return PyLong_AsLongAndOverflow(number, &overflow) > 0 && overflow == 0;
}

/* The record of the running task as a new reference; NULL if there is none, perhaps with an error. */
static PyObject *
running_record(void)
{
    PyObject *asyncio_task = PyObject_CallNoArgs(B.current_task);
    if (asyncio_task == NULL)
        return NULL;
    PyObject *task = Py_XNewRef(PyDict_GetItemWithError(B.records, asyncio_task));
    Py_DECREF(asyncio_task);
    if (task != NULL && !IS(task, Task))
        Py_CLEAR(task);
    return task;
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

/* CancelScope(), the vectorcall slot of the class. */
static PyObject *
scope_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t number = PyVectorcall_NARGS(nargsf);
    if (type == (PyObject *)T.CancelScope && number == 0
        && (kwnames == NULL || PyTuple_GET_SIZE(kwnames) == 0))
        return make_scope(B.DEADLINE_INF);
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
    PyObject *arguments[2] = {heap, entry};
    PyObject *result = PyObject_Vectorcall(B.heappush, arguments, 2, NULL);
    Py_DECREF(heap);
    Py_DECREF(entry);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
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
    PyObject *requests = call1(B.cancelling, asyncio_task);
    if (requests == NULL)
        goto original;
    Py_DECREF(requests);
    if (requests != zero)  /* there is one object for 0 */
        goto original;
    relative = Py_XNewRef(SLOT(self, CancelScope_relative));
    if (!is_inf(relative)) {
        if (relative == NULL || !is_positive(relative))
            goto original;
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
        if (enter_timed(self, state, deadlines, now, deadline) < 0)
            goto failed;
        PUT(self, CancelScope_deadline, deadline);
        PUT(self, CancelScope_relative, B.DEADLINE_INF);
    }
    PUT(self, Node_task, task);
    PUT(self, CancelScope_entered, Py_True);
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
    PyObject *running = PyObject_CallNoArgs(B.current_task);
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
        if (!may_fall_back())
            return NULL;
        if (nargs > 3) {
            PyErr_SetString(PyExc_TypeError, "__exit__() takes 4 positional arguments");
            return NULL;
        }
        for (Py_ssize_t i = 0; i < nargs; i++)
            arguments[i + 1] = args[i];
        return PyObject_Vectorcall(P.scope_exit, arguments, nargs + 1, NULL);
    }
}

/* -- children -------------------------------------------------------------------------------- */

/* Whether a task made directly is what loop.create_task() would make; -1 with an error. */
static int
is_plain(PyObject *making)
{
    /* The slots of a TaskMaking are set once. */
    if (SLOT(making, TaskMakingfactory) == NULL || SLOT(making, TaskMakingloop_type) == NULL
        || SLOT(making, TaskMakingcreate_task) == NULL || SLOT(making, TaskMakingcode) == NULL
        || SLOT(making, TaskMakingnamespace) == NULL)
        return 0;
    PyObject *found = PyObject_CallNoArgs(SLOT(making, TaskMakingfactory));
    if (found == NULL)
        return -1;
    Py_DECREF(found);
    if (found != Py_None)
        return 0;
    found = PyObject_GetAttr(SLOT(making, TaskMakingloop_type), N.create_task);
    if (found == NULL)
        return -1;
    Py_DECREF(found);
    if (found != SLOT(making, TaskMakingcreate_task))
        return 0;
    if (SLOT(making, TaskMakingcode) != Py_None) {
        found = PyObject_GetAttr(SLOT(making, TaskMakingcreate_task), N.__code__);
        if (found == NULL)
            return -1;
        Py_DECREF(found);
        if (found != SLOT(making, TaskMakingcode))
            return 0;
    }
    PyObject *namespace = SLOT(making, TaskMakingnamespace);
    if (!PyDict_CheckExact(namespace))
        return 0;
    int replaced = PyDict_Contains(namespace, N.create_task);
    if (replaced != 0)
        return replaced < 0 ? -1 : 0;
    found = PyObject_GetAttr(B.asyncio_tasks, N.Task);
    if (found == NULL)
        return -1;
    Py_DECREF(found);
    return found == B.NativeTask;
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
    PyObject *loop = Py_XNewRef(SLOT(state, LoopStateloop));
    PyObject *arguments[4] = {self, task, coro, loop};
    made = loop == NULL ? NULL : PyObject_Vectorcall(B.make_child_task, arguments, 4, NULL);
    Py_XDECREF(loop);
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
        || PyDict_SetItem(SLOT(self, Nursery_children), task, Py_None) < 0) {
        PyObject *parts[4] = {task, made, Py_None, coro};
        clean_up(B.unmake, parts, 4);
        result = -1;
    }
    Py_DECREF(made);
    Py_DECREF(task);
    return result;
}

/* Nearer to the recursion limit the frame of the Python function decides what fails first. It does
   before asyncio has kept a task. */
#define STACK_NEEDED 20

/* Nursery.start_soon */
static PyObject *
start_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *state = NULL, *scope = NULL, *making = NULL, *coro = NULL, *result = NULL;
    if (!IS(self, Nursery) || nargs < 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) != 0)
        || SLOT(self, Nursery_closed) != Py_False
        || PyThreadState_Get()->py_recursion_remaining < STACK_NEEDED)
        goto original;
    state = Py_XNewRef(SLOT(self, Nursery_state));
    scope = Py_XNewRef(SLOT(self, Nurserycancel_scope));
    if (state == NULL || !IS(state, LoopState) || scope == NULL || !IS(scope, CancelScope)
        || SLOT(state, LoopStateloop) == NULL || !HOLDS(self, Nursery_children, PyDict_CheckExact))
        goto original;
    making = Py_XNewRef(SLOT(state, LoopStatemaking));
    if (making == NULL || !IS(making, TaskMaking))
        goto original;
    PyObject *loop = PyObject_CallNoArgs(B.running_loop);
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
    if (SLOT(scope, Node_effective) == Py_False && SLOT(state, LoopStatestep_hooks) == Py_None) {
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
    int present = PyDict_Contains(children, args[0]);
    if (present < 0)
        return NULL;
    Py_INCREF(children);
    if (present && PyDict_DelItem(children, args[0]) < 0) {
        Py_DECREF(children);
        return NULL;
    }
    int empty = PyDict_GET_SIZE(children) == 0;
    Py_DECREF(children);
    /* Deleting a key runs no other code: the caller holds the record. */
    if (last != NULL && PyList_Append(errors, last) < 0)
        return NULL;
    if (empty && SLOT(self, Nursery_body_running) == Py_False)
        return PyObject_CallMethodNoArgs(self, N._wake);
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
    PyObject *nursery = NULL, *result = NULL;
    if (nargs != 2 || !IS(args[0], Task))
        goto original;
    PyObject *task = args[0];
    nursery = Py_XNewRef(SLOT(task, Task_parent_nursery));
    if (nursery == NULL || !IS(nursery, Nursery)
        || SLOT(task, Taskscope) != SLOT(nursery, Nurserycancel_scope)
        || SLOT(task, Task_extra) != B.NO_EXTRA)
        goto original;
    PyObject *state = SLOT(nursery, Nursery_state), *made = SLOT(task, Taskasyncio_task);
    PyObject *children = SLOT(nursery, Nursery_children);
    if (state == NULL || !IS(state, LoopState) || SLOT(state, LoopStatestep_hooks) != Py_None
        || made == NULL || !IS(made, ChildTask) || children == NULL
        || !PyDict_CheckExact(children))
        goto original;
    if (PyDict_DelItem(B.records, made) < 0)
        goto done;
    PUT(task, Task_owns_cancel_request, Py_False);
    PUT(task, Taskscope, B.ROOT);
    PyObject *ended[2] = {task, args[1]};
    result = child_ended(nursery, ended, 2);
    goto done;
original:
    result = PyObject_Vectorcall(P.end_child, args, nargs, NULL);
done:
    Py_XDECREF(nursery);
    return result;
}

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

/* cancel_ledger.request_cancel() for a task that owns no request. Returns 0, or -1 with an error. */
static int
request_cancel(PyObject *task, PyObject *asyncio_task, PyObject *scope)
{
    PyObject *before = call1(B.cancelling, asyncio_task);
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

static int
is_done(PyObject *future)
{
    PyObject *result = PyObject_CallMethodNoArgs(future, N.done);
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
    if (!IS(task, Task) || SLOT(task, Task_extra) != B.NO_EXTRA
        || SLOT(task, Task_owns_cancel_request) != Py_False)
        goto original;
    if (PyDict_GetItemWithError(B.anyio_hook_namespace, N.bridge) != Py_None
        || PyDict_GetItemWithError(B.swallowing_namespace, N.noted) != Py_False)
        goto original;
    asyncio_task = Py_XNewRef(SLOT(task, Taskasyncio_task));
    scope = Py_XNewRef(SLOT(task, Taskscope));
    if (asyncio_task == NULL || scope == NULL || !IS(scope, CancelScope)
        || !(IS(asyncio_task, ChildTask) || Py_IS_TYPE(asyncio_task, (PyTypeObject *)B.NativeTask)))
        goto original;
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
    { \
        PyObject *found = look_up(given, #name); \
        if (found == NULL) \
            return NULL; \
        if (!PyType_Check(found)) \
            return PyErr_Format(PyExc_TypeError, #name " is not a class"); \
        T.name = (PyTypeObject *)found; \
    }
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
        || !PyDict_CheckExact(B.anyio_hook_namespace) || !PyDict_CheckExact(B.scope_namespace)
        || !PyDict_CheckExact(B.swallowing_namespace) || !PyFloat_CheckExact(B.DEADLINE_INF)
        || !PyType_Check(B.Cancelled) || !PyType_Check(B.Future) || !PyType_Check(B.NativeTask)
        || !PyType_Check(B.OrderedDict) || !IS(B.ROOT, Node)
        || !PyCFunction_Check(B.current_task) || !PyCFunction_Check(B.running_loop)
        || !PyType_IsSubtype(T.CancelScope, T.Node)
        || !PyType_IsSubtype((PyTypeObject *)B.Cancelled, (PyTypeObject *)PyExc_BaseException)
        || T.CancelScope->tp_vectorcall != NULL)
        return PyErr_Format(PyExc_TypeError, "an object is not of the expected kind");
    zero = PyLong_FromLong(0);
    one = PyLong_FromLong(1);
    if (zero == NULL || one == NULL)
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
    T.CancelScope->tp_vectorcall = scope_vectorcall;
    bound = 1;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"bind", bind, METH_VARARGS, bind_doc},
    {"collect_children", (PyCFunction)collect_children, METH_FASTCALL, NULL},
    {"deliver", deliver, METH_O, NULL},
    {"end_child", (PyCFunction)end_child, METH_FASTCALL, NULL},
    {"limited", (PyCFunction)limited, METH_FASTCALL, NULL},
    {"new_scope", (PyCFunction)new_scope, METH_FASTCALL, NULL},
    {NULL}
};

static int
execute(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "this module is for the main interpreter alone");
        return -1;
    }
    return 0;
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
