// Writes Arrow columns as JSON, one object a row, into one buffer with the end of each row.
//
// A row is literals with values between them: `{"source":[`, 3, `,`, 41, `],"score":`, 0.25, `}`.
// Floats get the fewest digits that read back as the same value of their own width
// (std::to_chars), and always a point or an exponent, so that a reader keeps them floats.

#include "_buffers.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

namespace {

// Longer than any number that std::to_chars writes here.
constexpr size_t kNumberBytes = 32;

// One Arrow column: its type's letter and its buffers, `offset` values into them. A list has the
// column of its elements beside its offsets.
struct Column {
  char kind = 0;
  const unsigned char* valid = nullptr;
  const char* values = nullptr;
  const char* text = nullptr;
  Py_ssize_t offset = 0;
  std::unique_ptr<Column> elements;

  template <typename Value>
  Value at(Py_ssize_t row) const {
    Value value;
    std::memcpy(&value, values + (offset + row) * static_cast<Py_ssize_t>(sizeof value),
                sizeof value);
    return value;
  }

  static bool bit(const void* bits, Py_ssize_t index) {
    return static_cast<const unsigned char*>(bits)[index >> 3] >> (index & 7) & 1;
  }

  bool is_null(Py_ssize_t row) const { return valid != nullptr && !bit(valid, offset + row); }
};

template <typename Integer>
void write_integer(std::string& out, Integer value) {
  char digits[kNumberBytes];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, end);
}

template <typename Float>
void write_float(std::string& out, Float value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char digits[kNumberBytes];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, end);
  const std::string_view text(digits, static_cast<size_t>(end - digits));
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

// Valid UTF-8 stays as it is; what JSON (RFC 8259) forbids inside quotes is escaped.
void write_text(std::string& out, std::string_view text) {
  static const char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char byte : text) {
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += byte;
    } else if (static_cast<unsigned char>(byte) < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += byte;
    }
  }
  out += '"';
}

void write_value(std::string& out, const Column& column, Py_ssize_t row) {
  if (column.is_null(row)) {
    out += "null";
    return;
  }
  switch (column.kind) {
    case 'b':
      return write_integer(out, column.at<int8_t>(row));
    case 'h':
      return write_integer(out, column.at<int16_t>(row));
    case 'i':
      return write_integer(out, column.at<int32_t>(row));
    case 'q':
      return write_integer(out, column.at<int64_t>(row));
    case 'f':
      return write_float(out, column.at<float>(row));
    case 'd':
      return write_float(out, column.at<double>(row));
    case '?':
      out += Column::bit(column.values, column.offset + row) ? "true" : "false";
      return;
    case 's': {
      const auto begin = column.at<int32_t>(row), end = column.at<int32_t>(row + 1);
      return write_text(out, {column.text + begin, static_cast<size_t>(end - begin)});
    }
    default: {
      const auto begin = column.at<int32_t>(row), end = column.at<int32_t>(row + 1);
      out += '[';
      for (auto element = begin; element < end; ++element) {
        if (element > begin) out += ',';
        write_value(out, *column.elements, element);
      }
      out += ']';
    }
  }
}

// -- Python -------------------------------------------------------------------------------------

bool open_column(PyObject* item, Buffers& buffers, Column& column) {
  int kind;
  PyObject *valid, *values, *rest;
  if (!PyArg_ParseTuple(item, "CnOOO", &kind, &column.offset, &valid, &values, &rest)) return false;
  column.kind = static_cast<char>(kind);
  char *marks, *data, *text = nullptr;
  if (!buffers.open(valid, false, 0, &marks) || !buffers.open(values, false, 0, &data)) return false;
  if (column.kind == 'l') {
    column.elements = std::make_unique<Column>();
    if (!open_column(rest, buffers, *column.elements)) return false;
  } else if (!buffers.open(rest, false, 0, &text)) {
    return false;
  }
  column.valid = reinterpret_cast<const unsigned char*>(marks);
  column.values = data;
  column.text = text;
  return true;
}

PyObject* encode_rows(Py_ssize_t rows, PyObject* literals, PyObject* items) {
  const Py_ssize_t count = PyList_Size(items);
  if (count < 0 || PyList_Size(literals) != count + 1) {
    PyErr_SetString(PyExc_ValueError, "one literal more than there are columns");
    return nullptr;
  }
  Buffers buffers;
  std::vector<Column> columns(static_cast<size_t>(count));
  std::vector<std::string_view> between(static_cast<size_t>(count) + 1);
  size_t literal_bytes = 0;
  for (Py_ssize_t i = 0; i <= count; ++i) {
    char* data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(PyList_GetItem(literals, i), &data, &size) != 0) return nullptr;
    between[static_cast<size_t>(i)] = std::string_view(data, static_cast<size_t>(size));
    literal_bytes += static_cast<size_t>(size);
    if (i < count &&
        !open_column(PyList_GetItem(items, i), buffers, columns[static_cast<size_t>(i)])) {
      return nullptr;
    }
  }
  std::string out;
  std::vector<int32_t> ends{0};
  bool out_of_memory = false;
  Py_BEGIN_ALLOW_THREADS;
  try {
    out.reserve(static_cast<size_t>(rows) * (literal_bytes + kNumberBytes / 2 * columns.size()));
    ends.reserve(static_cast<size_t>(rows) + 1);
    for (Py_ssize_t row = 0; row < rows && out.size() <= INT32_MAX; ++row) {
      for (size_t i = 0; i < columns.size(); ++i) {
        out += between[i];
        write_value(out, columns[i], row);
      }
      out += between.back();
      ends.push_back(static_cast<int32_t>(out.size()));
    }
  } catch (const std::bad_alloc&) {
    out_of_memory = true;
  }
  Py_END_ALLOW_THREADS;
  if (out_of_memory) return PyErr_NoMemory();
  if (out.size() > INT32_MAX) {
    PyErr_SetString(PyExc_OverflowError, "the rows of a batch take more than 2 GiB as JSON");
    return nullptr;
  }
  return Py_BuildValue("y#y#", reinterpret_cast<const char*>(ends.data()),
                       static_cast<Py_ssize_t>(ends.size() * sizeof ends[0]), out.data(),
                       static_cast<Py_ssize_t>(out.size()));
}

PyObject* encode(PyObject*, PyObject* arguments) {
  Py_ssize_t rows;
  PyObject *literals, *columns;
  if (!PyArg_ParseTuple(arguments, "nOO", &rows, &literals, &columns)) return nullptr;
  try {
    return encode_rows(rows, literals, columns);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyMethodDef kMethods[] = {
    {"encode", encode, METH_VARARGS, "See pipeline/_encode.pyi."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "pipeline._encode", nullptr, 0,       kMethods,
    nullptr,               nullptr,            nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__encode() { return PyModule_Create(&kModule); }
