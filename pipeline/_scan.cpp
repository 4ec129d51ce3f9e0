// Reads flat JSON objects into typed columns, in one pass over each record's bytes.
//
// What it accepts is valid JSON (RFC 8259) whose fields have exactly the types that were asked for,
// and means the same to it as to `pipeline.json_structs`. It says no to everything else, also to
// what it merely does not care to read (a string with escapes, a field twice, deep nesting): such a
// record is doubted, and the Python reader has the word on it. So a mistake here can only be in
// accepting too much, which the tests hold against that reader.

#include "_buffers.h"
#include "_numbers.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <vector>

namespace {

// Deeper values are left to the reader that counts depth by itself; recursion stays small.
constexpr int kMaxDepth = 64;

// Each function that reads takes where it stands and where the record ends, and returns where it
// stopped, or null. A record is followed by `kAhead` zeros, so that so many bytes past the end may be
// looked at, and no token goes over it.

inline const char* skip_space(const char* at) {
  while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') ++at;
  return at;
}

inline const char* read_word(const char* at, const char* end, std::string_view word) {
  if (static_cast<size_t>(end - at) < word.size()) return nullptr;
  return std::memcmp(at, word.data(), word.size()) == 0 ? at + word.size() : nullptr;
}

// -- strings ------------------------------------------------------------------------------------

// The length of the UTF-8 sequence at `at` (RFC 3629: shortest form, no surrogates), 0 if invalid.
int utf8_length(const char* at, const char* end) {
  const auto byte = [&](int i) { return static_cast<unsigned char>(at[i]); };
  const auto follows = [&](int i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned char first = byte(0);
  const auto left = end - at;
  if (first >= 0xC2 && first <= 0xDF) return left >= 2 && follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (left < 3 || !follows(1) || !follows(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    if (first == 0xED && byte(1) > 0x9F) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (left < 4 || !follows(1) || !follows(2) || !follows(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

// A string without escapes.
const char* read_string(const char* at, const char* end, std::string_view& text) {
  if (*at != '"') return nullptr;
  const char* begin = ++at;
  while (true) {
    const auto byte = static_cast<unsigned char>(*at);
    if (byte == '"') break;
    if (byte == '\\' || byte < 0x20) return nullptr;
    if (byte < 0x80) {
      ++at;
      continue;
    }
    const int length = utf8_length(at, end);
    if (length == 0) return nullptr;
    at += length;
  }
  text = std::string_view(begin, static_cast<size_t>(at - begin));
  return at + 1;
}

// -- what nobody asked for ----------------------------------------------------------------------

const char* skip_value(const char* at, const char* end, int depth);

const char* skip_members(const char* at, const char* end, char close, bool named, int depth) {
  at = skip_space(at + 1);
  if (*at == close) return at + 1;
  std::string_view name;
  while (true) {
    if (named) {
      at = read_string(at, end, name);
      if (at == nullptr) return nullptr;
      at = skip_space(at);
      if (*at != ':') return nullptr;
      at = skip_space(at + 1);
    }
    at = skip_value(at, end, depth + 1);
    if (at == nullptr) return nullptr;
    at = skip_space(at);
    if (*at == close) return at + 1;
    if (*at != ',') return nullptr;
    at = skip_space(at + 1);
  }
}

const char* skip_value(const char* at, const char* end, int depth) {
  if (depth > kMaxDepth) return nullptr;
  std::string_view text;
  Number number;
  switch (*at) {
    case '"':
      return read_string(at, end, text);
    case '{':
      return skip_members(at, end, '}', true, depth);
    case '[':
      return skip_members(at, end, ']', false, depth);
    case 't':
      return read_word(at, end, "true");
    case 'f':
      return read_word(at, end, "false");
    case 'n':
      return read_word(at, end, "null");
    default:
      return read_number(at, end, number);
  }
}

// -- targets ------------------------------------------------------------------------------------

enum class Kind : char {
  kFloat = 'f',
  kDouble = 'd',
  kInt32 = 'i',
  kInt64 = 'q',
  kBool = '?',
  kString = 's',
  kIntegers = 'l',  // an array of any length, of integers of 64 bits
};

// Where one field goes. `row_bytes` lie between the places of two rows in `data`. A scalar has
// `length` -1, a vector its number of elements. `limit` bounds a number's absolute value (for
// integers from above; one more is allowed below). What has no fixed size, a string or an array of
// any length, goes to `pieces`, and its end there to `data`.
struct Target {
  std::string_view name;
  Kind kind;
  Py_ssize_t length;
  double limit;
  char* data;
  Py_ssize_t row_bytes;
  unsigned char* valid;  // one byte a row, or null where the field may not be absent or null
  const char* missing;   // the bytes that stand in for an absent field, or null
  const char* null;      // the bytes that stand in for a null
  Py_ssize_t value_bytes;
  bool lenient;  // whether a value of another type counts as null
  std::string pieces;

  bool has_pieces() const { return kind == Kind::kString || kind == Kind::kIntegers; }
};

// Write a number as its target has it; false where it does not fit.
inline bool write_number(const Number& number, Kind kind, double limit, char* place) {
  switch (kind) {
    case Kind::kFloat: {
      const auto value = static_cast<float>(number.real);
      std::memcpy(place, &value, sizeof value);
      return std::fabs(number.real) <= limit;
    }
    case Kind::kDouble:
      std::memcpy(place, &number.real, sizeof number.real);
      return std::fabs(number.real) <= limit;
    default: {
      if (!number.is_integer) return false;
      const auto value = static_cast<double>(number.integer);
      const auto narrow = static_cast<int32_t>(number.integer);
      if (kind == Kind::kInt32) std::memcpy(place, &narrow, sizeof narrow);
      if (kind == Kind::kInt64) std::memcpy(place, &number.integer, sizeof number.integer);
      return value <= limit && value >= -limit - 1;
    }
  }
}

inline const char* read_scalar(const char* at, const char* end, Target& target, char* place) {
  if (target.kind == Kind::kString) {
    std::string_view text;
    at = read_string(at, end, text);
    if (at != nullptr) target.pieces.append(text);
    return at;
  }
  if (target.kind == Kind::kBool) {
    *place = *at == 't';
    return read_word(at, end, *at == 't' ? "true" : "false");
  }
  Number number;
  at = read_number(at, end, number);
  return at != nullptr && write_number(number, target.kind, target.limit, place) ? at : nullptr;
}

// An element that `read_decimal` does not know. Apart, as inlined it takes the registers of the loop
// around it, which is then twice as slow.
[[gnu::noinline]] const char* read_element(const char* at, const char* end, Target& target,
                                           char* place) {
  at = read_scalar(skip_space(at), end, target, place);
  return at == nullptr ? nullptr : skip_space(at);
}

// The ends of the elements are found first, 64 bytes at a time: what an element holds then keeps
// nobody waiting, and the processor reads several at once.
const char* read_vector(const char* at, const char* end, Target& target, char* place) {
  if (*at != '[') return nullptr;
  const bool real = target.kind == Kind::kFloat || target.kind == Kind::kDouble;
  const auto size = target.value_bytes / target.length;
  Py_ssize_t left = target.length;
  ++at;
  for (const char* block = at; block < end; block += kBlock) {
    const uint64_t brackets = places_of(block, ']');
    uint64_t ends = places_of(block, ',');
    ends = (ends | brackets) & (brackets ^ (brackets - 1));
    for (; ends != 0; ends &= ends - 1, place += size) {
      if (left-- == 0) return nullptr;
      const char* stop = block + __builtin_ctzll(ends);
      Number number;
      if (real && read_decimal(at, stop, number.real)) {
        // Less than ten, which is within any limit.
        write_number(number, target.kind, target.limit, place);
      } else if (read_element(at, end, target, place) != stop) {
        return nullptr;
      }
      at = stop + 1;
    }
    if (brackets != 0) return left == 0 ? at : nullptr;
  }
  return nullptr;
}

const char* read_integers(const char* at, const char* end, Target& target) {
  if (*at != '[') return nullptr;
  at = skip_space(at + 1);
  if (*at == ']') return at + 1;
  Number number;
  char value[sizeof(int64_t)];
  while (true) {
    at = read_number(at, end, number);
    if (at == nullptr || !write_number(number, Kind::kInt64, target.limit, value)) return nullptr;
    target.pieces.append(value, sizeof value);
    at = skip_space(at);
    if (*at == ']') return at + 1;
    if (*at != ',') return nullptr;
    at = skip_space(at + 1);
  }
}

// What stands in for a field that is absent or null; false where nothing does.
bool stand_in(Target& target, Py_ssize_t row, const char* choice) {
  if (target.valid != nullptr) {
    target.valid[row] = 0;
    return true;
  }
  if (choice == nullptr) return false;
  std::memcpy(target.data + row * target.row_bytes, choice,
              static_cast<size_t>(target.value_bytes));
  return true;
}

const char* read_field(const char* at, const char* end, Target& target, Py_ssize_t row) {
  if (*at == 'n') {
    return stand_in(target, row, target.null) ? read_word(at, end, "null") : nullptr;
  }
  char* place = target.data + row * target.row_bytes;
  const char* after = target.kind == Kind::kIntegers ? read_integers(at, end, target)
                      : target.length < 0            ? read_scalar(at, end, target, place)
                                                     : read_vector(at, end, target, place);
  if (after != nullptr) {
    if (target.valid != nullptr) target.valid[row] = 1;
    return after;
  }
  return target.lenient && stand_in(target, row, nullptr) ? skip_value(at, end, 0) : nullptr;
}

// -- objects ------------------------------------------------------------------------------------

class Reader {
 public:
  Reader(std::vector<Target>& targets, bool forbid_unknown)
      : targets_(targets),
        seen_(targets.size(), -1),
        following_(targets.size() + 1, 0),
        forbid_unknown_(forbid_unknown) {}

  // Read one record into its row; false where it is doubted, and the row then means nothing.
  bool read(std::string_view record, Py_ssize_t row) {
    const char* at = record.data();
    const char* end = at + record.size();
    previous_ = targets_.size();
    at = skip_space(at);
    if (*at != '{') return false;
    at = skip_space(at + 1);
    if (*at != '}') {
      while (true) {
        at = member(at, end, row);
        if (at == nullptr) return false;
        at = skip_space(at);
        if (*at != ',') break;
        at = skip_space(at + 1);
      }
      if (*at != '}') return false;
    }
    if (skip_space(at + 1) != end) return false;
    for (size_t i = 0; i < targets_.size(); ++i) {
      if (seen_[i] != row && !stand_in(targets_[i], row, targets_[i].missing)) return false;
    }
    return true;
  }

 private:
  const char* member(const char* at, const char* end, Py_ssize_t row) {
    std::string_view name;
    at = read_string(at, end, name);
    if (at == nullptr) return nullptr;
    at = skip_space(at);
    if (*at != ':') return nullptr;
    at = skip_space(at + 1);
    const size_t found = find(name);
    if (found == targets_.size()) return forbid_unknown_ ? nullptr : skip_value(at, end, 0);
    const char* after = nullptr;
    // Targets of one field stand side by side: each reads the value anew.
    for (size_t i = found; i < targets_.size() && targets_[i].name == name; ++i) {
      if (seen_[i] == row) return nullptr;
      seen_[i] = row;
      after = read_field(at, end, targets_[i], row);
      if (after == nullptr) return nullptr;
    }
    following_[previous_] = found;
    previous_ = found;
    return after;
  }

  // Events of one producer name their fields in one order: what followed last time is tried first.
  size_t find(std::string_view name) const {
    const size_t guess = following_[previous_];
    if (guess < targets_.size() && targets_[guess].name == name) return guess;
    size_t i = 0;
    while (i < targets_.size() && targets_[i].name != name) ++i;
    return i;
  }

  std::vector<Target>& targets_;
  std::vector<Py_ssize_t> seen_;
  // By target, and at the end by the beginning of a record: the target that followed it last.
  std::vector<size_t> following_;
  size_t previous_ = 0;
  bool forbid_unknown_;
};

// -- Python -------------------------------------------------------------------------------------

Py_ssize_t element_bytes(Kind kind) {
  switch (kind) {
    case Kind::kFloat:
    case Kind::kInt32:
      return 4;
    case Kind::kBool:
      return 1;
    default:
      return 8;
  }
}

bool open_target(PyObject* item, Py_ssize_t rows, Buffers& buffers, Target& target) {
  const char* name;
  Py_ssize_t name_bytes;
  int kind;
  Py_ssize_t offset;
  int lenient;
  PyObject *data, *valid, *missing, *null;
  if (!PyArg_ParseTuple(item, "s#CndOnnOOOp", &name, &name_bytes, &kind, &target.length,
                        &target.limit, &data, &offset, &target.row_bytes, &valid, &missing, &null,
                        &lenient)) {
    return false;
  }
  target.name = std::string_view(name, static_cast<size_t>(name_bytes));
  target.kind = static_cast<Kind>(kind);
  target.lenient = lenient != 0;
  target.value_bytes = element_bytes(target.kind) * (target.length < 0 ? 1 : target.length);
  const auto last = rows > 0 ? offset + (rows - 1) * target.row_bytes + target.value_bytes : 0;
  char *place, *marks, *absent, *nothing;
  if (!buffers.open(data, true, last, &place) || !buffers.open(valid, true, rows, &marks) ||
      !buffers.open(missing, false, target.value_bytes, &absent) ||
      !buffers.open(null, false, target.value_bytes, &nothing)) {
    return false;
  }
  target.data = place == nullptr ? nullptr : place + offset;
  target.valid = reinterpret_cast<unsigned char*>(marks);
  target.missing = absent;
  target.null = nothing;
  return true;
}

// An Arrow binary array; a null counts as the bytes at its place, mostly none.
struct Records {
  const int32_t* offsets;  // [rows + 1]
  const char* data;
};

bool open_records(Py_ssize_t rows, PyObject* values, Buffers& buffers, Records& records) {
  Py_ssize_t first;
  PyObject *offsets, *data;
  if (!PyArg_ParseTuple(values, "nOO", &first, &offsets, &data)) return false;
  if (rows == 0) return true;
  constexpr auto kOffset = static_cast<Py_ssize_t>(sizeof(int32_t));
  char *ends, *bytes;
  if (!buffers.open(offsets, false, (first + rows + 1) * kOffset, &ends)) return false;
  records.offsets = reinterpret_cast<const int32_t*>(ends) + first;
  for (Py_ssize_t row = 0; row < rows; ++row) {
    if (records.offsets[row] < 0 || records.offsets[row] > records.offsets[row + 1]) {
      PyErr_SetString(PyExc_ValueError, "the offsets of the values do not ascend");
      return false;
    }
  }
  if (!buffers.open(data, false, records.offsets[rows], &bytes)) return false;
  records.data = bytes == nullptr ? "" : bytes;
  return true;
}

PyObject* scan_records(Py_ssize_t rows, PyObject* values, PyObject* specifications,
                       int forbid_unknown) {
  const Py_ssize_t count = PyList_Size(specifications);
  if (count < 0) return nullptr;
  Buffers buffers;
  Records records;
  if (!open_records(rows, values, buffers, records)) return nullptr;
  std::vector<Target> targets(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* item = PyList_GetItem(specifications, i);
    if (!open_target(item, rows, buffers, targets[static_cast<size_t>(i)])) return nullptr;
  }
  std::vector<Py_ssize_t> doubted;
  bool out_of_memory = false;
  Py_BEGIN_ALLOW_THREADS;
  try {
    Reader reader(targets, forbid_unknown != 0);
    std::string record;
    for (Py_ssize_t row = 0; row < rows; ++row) {
      // Copied for the zeros behind it: a record that breaks off must not go on in the next one.
      const int32_t start = records.offsets[row];
      const auto size = static_cast<size_t>(records.offsets[row + 1] - start);
      record.assign(records.data + start, size).append(kAhead, '\0');
      if (!reader.read({record.data(), size}, row)) doubted.push_back(row);
      for (Target& target : targets) {
        if (!target.has_pieces()) continue;
        const auto end = static_cast<int64_t>(target.pieces.size());
        std::memcpy(target.data + row * target.row_bytes, &end, sizeof end);
      }
    }
  } catch (const std::bad_alloc&) {
    out_of_memory = true;
  }
  Py_END_ALLOW_THREADS;
  if (out_of_memory) return PyErr_NoMemory();
  PyObject* pieces = PyList_New(0);
  PyObject* doubts = PyList_New(0);
  bool good = pieces != nullptr && doubts != nullptr;
  for (size_t i = 0; good && i < targets.size(); ++i) {
    const std::string& all = targets[i].pieces;
    PyObject* piece = PyBytes_FromStringAndSize(all.data(), static_cast<Py_ssize_t>(all.size()));
    good = piece != nullptr && PyList_Append(pieces, piece) == 0;
    Py_XDECREF(piece);
  }
  for (size_t i = 0; good && i < doubted.size(); ++i) {
    PyObject* row = PyLong_FromSsize_t(doubted[i]);
    good = row != nullptr && PyList_Append(doubts, row) == 0;
    Py_XDECREF(row);
  }
  PyObject* answer = good ? PyTuple_Pack(2, doubts, pieces) : nullptr;
  Py_XDECREF(pieces);
  Py_XDECREF(doubts);
  return answer;
}

PyObject* scan(PyObject*, PyObject* arguments) {
  Py_ssize_t rows;
  PyObject *values, *targets;
  int forbid_unknown;
  if (!PyArg_ParseTuple(arguments, "nOOp", &rows, &values, &targets, &forbid_unknown)) {
    return nullptr;
  }
  try {
    return scan_records(rows, values, targets, forbid_unknown);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyMethodDef kMethods[] = {
    {"scan", scan, METH_VARARGS, "See pipeline/_scan.pyi."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "pipeline._scan", nullptr, 0, kMethods, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__scan() { return PyModule_Create(&kModule); }
