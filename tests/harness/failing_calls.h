/* For `call_injection`: each call of the C file that can fail asks first whether it is to fail.

   The C file is compiled with `-include` of this file. `nurseryio_fail_hook` is a Python callable, which is
   given the line and the name of the C function. If it raises, the call is not made, and has failed
   with this error. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

__attribute__((visibility("default"))) PyObject *nurseryio_fail_hook = NULL;

static int
call_fails(int line, const char *function)
{
    if (nurseryio_fail_hook == NULL || PyErr_Occurred())
        return 0;
    PyObject *result = PyObject_CallFunction(nurseryio_fail_hook, "is", line, function);
    Py_XDECREF(result);
    return result == NULL;
}

#define OR_NULL(call) (call_fails(__LINE__, __func__) ? NULL : (call))
#define OR_MINUS_ONE(call) (call_fails(__LINE__, __func__) ? -1 : (call))

/* A macro does not expand itself. */
#define PyDict_GetItemWithError(...) OR_NULL(PyDict_GetItemWithError(__VA_ARGS__))
#define PyDict_New() OR_NULL(PyDict_New())
#define PyIter_Next(...) OR_NULL(PyIter_Next(__VA_ARGS__))
#define PyList_New(...) OR_NULL(PyList_New(__VA_ARGS__))
#define PyLong_FromLong(...) OR_NULL(PyLong_FromLong(__VA_ARGS__))
#define PyLong_FromSsize_t(...) OR_NULL(PyLong_FromSsize_t(__VA_ARGS__))
#define PyNumber_Add(...) OR_NULL(PyNumber_Add(__VA_ARGS__))
#define PyNumber_Subtract(...) OR_NULL(PyNumber_Subtract(__VA_ARGS__))
#define PyObject_Call(...) OR_NULL(PyObject_Call(__VA_ARGS__))
#define PyObject_CallMethodNoArgs(...) OR_NULL(PyObject_CallMethodNoArgs(__VA_ARGS__))
#define PyObject_CallMethodOneArg(...) OR_NULL(PyObject_CallMethodOneArg(__VA_ARGS__))
#define PyObject_CallNoArgs(...) OR_NULL(PyObject_CallNoArgs(__VA_ARGS__))
#define PyObject_GetAttr(...) OR_NULL(PyObject_GetAttr(__VA_ARGS__))
#define PyObject_GetIter(...) OR_NULL(PyObject_GetIter(__VA_ARGS__))
#define PyObject_Vectorcall(...) OR_NULL(PyObject_Vectorcall(__VA_ARGS__))
#define PyObject_VectorcallMethod(...) OR_NULL(PyObject_VectorcallMethod(__VA_ARGS__))
#define PyTuple_New(...) OR_NULL(PyTuple_New(__VA_ARGS__))
#define PyTuple_Pack(...) OR_NULL(PyTuple_Pack(__VA_ARGS__))

#define PyDict_Contains(...) OR_MINUS_ONE(PyDict_Contains(__VA_ARGS__))
#define PyDict_DelItem(...) OR_MINUS_ONE(PyDict_DelItem(__VA_ARGS__))
#define PyDict_SetItem(...) OR_MINUS_ONE(PyDict_SetItem(__VA_ARGS__))
#define PyList_Append(...) OR_MINUS_ONE(PyList_Append(__VA_ARGS__))
#define PyList_SetSlice(...) OR_MINUS_ONE(PyList_SetSlice(__VA_ARGS__))
#define PyObject_IsTrue(...) OR_MINUS_ONE(PyObject_IsTrue(__VA_ARGS__))
#define PyObject_RichCompareBool(...) OR_MINUS_ONE(PyObject_RichCompareBool(__VA_ARGS__))
#define PyObject_SetItem(...) OR_MINUS_ONE(PyObject_SetItem(__VA_ARGS__))
