// What the compiled parts share: Python's stable interface, and the memory behind its objects.

#pragma once

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <vector>

// Buffers of one call, released when it ends.
class Buffers {
 public:
  ~Buffers() {
    for (Py_buffer& buffer : held_) PyBuffer_Release(&buffer);
  }

  // The memory of `object`, null for None. False with an exception set where it has none.
  bool open(PyObject* object, bool writable, Py_ssize_t bytes, char** memory) {
    *memory = nullptr;
    if (object == Py_None) return true;
    Py_buffer buffer;
    if (PyObject_GetBuffer(object, &buffer, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0) {
      return false;
    }
    held_.push_back(buffer);
    if (buffer.len < bytes) {
      PyErr_Format(PyExc_ValueError, "a buffer of %zd bytes where %zd are written", buffer.len,
                   bytes);
      return false;
    }
    *memory = static_cast<char*>(buffer.buf);
    return true;
  }

 private:
  std::vector<Py_buffer> held_;
};
